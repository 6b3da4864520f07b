"""Which class of a classified raster (ESA WorldCover, CORINE, NLCD) covers most of an image's ground.

An image's ground is looked at on a grid of points between its own edges, so that turned images and rasters in other
maps are right. Where rasters meet or overlap each point counts once: the first file that knows it says what it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gfm.imagery.footprint import FULL_TURN, Bounds, Transform, raster_bounds
from gfm.imagery.overlap import overlapping
from gfm.imagery.raster import ImageError, open_scene, reading

UNKNOWN = -1

_POINTS = 32  # a side
_IMAGES_AT_ONCE = 64  # whose points are carried into a raster's map together
_MOST_PX = 2048  # a side of what is read at once
_DECIMALS = 6  # of a raster's pixel: points on an edge fall on the same side on every machine

Found = npt.NDArray[np.int16]
Pixels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Footprint(NamedTuple):
    """Where an image of so many pixels lies: `transform` gives its pixels in `crs`."""

    bounds: Bounds
    crs: str
    transform: Transform
    width: int
    height: int


class Map(NamedTuple):
    """A classified raster and its ground."""

    path: Path
    bounds: Bounds


class Legend(NamedTuple):
    """What stored values mean: the number of a class, or nothing; `key` names the parameter in errors."""

    numbers: Mapping[int, int]
    nodata: int
    key: str


def read_map(path: Path) -> Map:
    """A classified raster by its header.

    Raises ImageError where it cannot be read, has no place, or is not one band of whole numbers.
    """
    with open_scene(path, None) as dataset:
        if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "iu":
            kinds = ", ".join(sorted(set(dataset.dtypes)))
            fix = "a map of classes is one band of whole numbers: convert it, or leave it out by include"
            raise ImageError(path, f"has {dataset.count} band{'' if dataset.count == 1 else 's'} of {kinds}", fix)
        bounds = raster_bounds(dataset)
    if bounds is None:
        fix = "give it a coordinate system and pixels of some size (gdal_edit -a_srs, -a_ullr)"
        raise ImageError(path, "does not say where it lies", fix)
    return Map(path, bounds)


def main_classes(images: Sequence[Footprint], maps: Sequence[Map], legend: Legend) -> list[int]:
    """For each image the class that covers most of its ground, the lower number of two; else UNKNOWN.

    UNKNOWN where the maps, in their order, say nothing of more than half of it. ImageError names the map that cannot be
    read, or holds a value that the legend does not know, under an image.
    """
    found = np.full((len(images), _POINTS**2), UNKNOWN, np.int16)
    boxes = [np.array([one.bounds for one in some], np.float64).reshape(-1, 4) for some in (images, maps)]
    met = defaultdict(list)
    for image, number in overlapping(*boxes).tolist():
        met[number].append(image)
    for number in sorted(met):
        lacking = [image for image in met[number] if (found[image] == UNKNOWN).any()]
        if lacking:
            _look(maps[number].path, images, lacking, found, legend)
    return [_main(classes) for classes in found]


def _look(path: Path, images: Sequence[Footprint], which: Sequence[int], found: Found, legend: Legend) -> None:
    by_crs = defaultdict(list)
    for image in which:
        by_crs[images[image].crs].append(image)
    with open_scene(path, None) as dataset:
        for crs, alike in by_crs.items():
            for start in range(0, len(alike), _IMAGES_AT_ONCE):
                some = alike[start : start + _IMAGES_AT_ONCE]
                columns, lines = _pixels(path, dataset, crs, [images[image] for image in some])
                for image, column, line in zip(some, columns, lines, strict=True):
                    known = (column >= 0) & (column < dataset.width) & (line >= 0) & (line < dataset.height)
                    points = np.flatnonzero(known & (found[image] == UNKNOWN))
                    for part, values in _values(dataset, points, column, line):
                        found[image, part] = _classes(path, dataset, values, legend)


def _pixels(path: Path, dataset: Any, crs: str, images: Sequence[Footprint]) -> tuple[Pixels, Pixels]:
    """The map's columns and lines (images, points) of the images' points; -1 where there are none."""
    from rasterio.warp import transform

    middle = (np.arange(_POINTS) + 0.5) / _POINTS
    across, down = (axis.ravel() for axis in np.meshgrid(middle, middle))
    xs, ys = np.empty((2, len(images), _POINTS**2))
    for image, x, y in zip(images, xs, ys, strict=True):
        a, b, c, d, e, f = image.transform
        x[:] = a * across * image.width + b * down * image.height + c
        y[:] = d * across * image.width + e * down * image.height + f
    with reading(path):
        moved = np.array(transform(crs, dataset.crs, xs.ravel(), ys.ravel()), np.float64).reshape(2, *xs.shape)
    if dataset.crs.is_geographic:  # longitudes may be counted from elsewhere, or run on past 180
        west = dataset.bounds.left
        with np.errstate(invalid="ignore"):  # infinite where the two maps share no ground
            moved[0] = west + np.mod(moved[0] - west, FULL_TURN)
    columns, lines = ~dataset.transform @ (moved[0], moved[1])
    return _whole(columns), _whole(lines)


def _whole(pixels: Floats) -> Pixels:
    return np.where(np.isfinite(pixels), np.floor(np.round(pixels, _DECIMALS)), -1).clip(-1, 2**31).astype(np.int64)


def _values(
    dataset: Any, points: Pixels, columns: Pixels, lines: Pixels
) -> Iterator[tuple[Pixels, npt.NDArray[np.integer[Any]]]]:
    """The map's values at some points, by windows of a bounded size; two sides of the antimeridian are two windows."""
    from rasterio.windows import Window

    if not len(points):
        return
    column, line = columns[points], lines[points]
    left, top, right, bottom = column.min(), line.min(), column.max() + 1, line.max() + 1
    if max(right - left, bottom - top) > _MOST_PX:
        first = column < (left + right) / 2 if right - left > bottom - top else line < (top + bottom) / 2
        yield from _values(dataset, points[first], columns, lines)
        yield from _values(dataset, points[~first], columns, lines)
        return
    read = dataset.read(1, window=Window(left, top, right - left, bottom - top))
    yield points, read[line - top, column - left]


def _classes(path: Path, dataset: Any, values: npt.NDArray[np.integer[Any]], legend: Legend) -> Found:
    classes = np.full(len(values), UNKNOWN, np.int16)
    for value in np.unique(values).tolist():
        number = legend.numbers.get(value)
        if number is not None:
            classes[values == value] = number
        elif value not in (legend.nodata, dataset.nodata):
            fix = f"name it there, or as {legend.key}.nodata if it means nothing"
            raise ImageError(path, f"holds {value}, which {legend.key}.classes does not name", fix)
    return classes


def _main(classes: Found) -> int:
    known = classes[classes != UNKNOWN]
    return int(np.bincount(known).argmax()) if 2 * len(known) >= len(classes) else UNKNOWN
