"""Imagery stored as one GeoTIFF a band: finding the files of the declared bands, reading them on one grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gfm.imagery.raster import Array, ImageError, check_finite, check_pixels, open_scene, reading, unreadable
from gfm.params import Imagery

RASTERS = (".tif", ".tiff")


def names_band(file: Path, band: str) -> bool:
    """Whether a file's name is that of a band's file, `B04.tif` or `…_B04.tif`, in upper or lower case."""
    stem, name = file.stem.lower(), band.lower()
    return stem == name or stem.endswith(f"_{name}")


def find_bands(folder: Path, imagery: Imagery) -> list[Path]:
    """The file of each declared band, in declared order; ImageError names the band that has no file, or several."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None
    found = []
    for band in imagery.bands:
        fitting = [path for path in files if path.suffix.lower() in RASTERS and names_band(path, band)]
        if len(fitting) != 1:
            what = "no file" if not fitting else f"{len(fitting)} files"
            raise ImageError(folder, f"{what} of band {band} (*_{band}.tif)", "give one file a band")
        found.append(fitting[0])
    return found


def of_bands(imagery: Imagery, bands: Sequence[str]) -> Imagery:
    """The declaration of an array that holds just these bands, in this order."""
    return imagery.model_copy(update={"bands": {band: imagery.bands[band] for band in bands}})


def read_bands(files: Sequence[Path], imagery: Imagery, bands: Sequence[str]) -> Array:
    """Whole `bands` as stored, (H, W, len(bands)), on the grid of the first declared band.

    `files` and errors are as for `open_bands`, and an image above MAX_PIXELS is refused.
    """
    with open_bands(files, imagery, bands) as stack:
        check_pixels(files[0], stack.first.width, stack.first.height)
        return stack.read()


@dataclass(frozen=True, slots=True)
class BandStack:
    """Open files of one image, every layer as if it had the first declared band's grid."""

    first: Any  # rasterio dataset of the first declared band
    layers: list[tuple[Path, Any]]
    imagery: Imagery

    def read(self, window: Any = None) -> Array:
        """One window (None: all), (H, W, layers) as stored; ImageError names the file that is damaged."""
        return np.stack([self._layer(path, layer, window) for path, layer in self.layers], axis=-1)

    def _layer(self, path: Path, layer: Any, window: Any) -> Array:
        with reading(path):
            pixels = np.asarray(layer.read(1, window=window))
        check_finite(path, pixels[..., None], self.imagery)
        return pixels


@contextmanager
def open_bands(files: Sequence[Path], imagery: Imagery, bands: Sequence[str]) -> Iterator[BandStack]:
    """`bands` of an image, bilinear on the grid of the first declared band.

    `files` are in the order of the declared bands, as `find_bands` gives them. Raises ImageError when one is not a
    single band of the declared type, or lies on another grid and has no coordinate system to be resampled by.
    """
    by_band = dict(zip(imagery.bands, files, strict=True))
    name, path = next(iter(by_band.items()))
    with ExitStack() as stack:
        first = stack.enter_context(open_scene(path, of_bands(imagery, [name])))
        layers = []
        for band in bands:
            path = by_band[band]
            layer = first
            if band != name:
                own = stack.enter_context(open_scene(path, of_bands(imagery, [band])))
                layer = stack.enter_context(_on_grid(own, first, path, imagery.nodata))
            layers.append((path, layer))
        yield BandStack(first, layers, imagery)


@contextmanager
def _on_grid(dataset: Any, first: Any, path: Path, nodata: float | None) -> Iterator[Any]:
    """The dataset as if it had the first band's grid."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    same_size = (dataset.width, dataset.height) == (first.width, first.height)
    if same_size and dataset.crs == first.crs and dataset.transform.almost_equals(first.transform):
        yield dataset
        return
    if dataset.crs is None or first.crs is None:
        fix = "georeference both files, or resample them to one size"
        raise ImageError(path, "has another grid than the first band, and no coordinate system to resample by", fix)
    _check_cover(dataset, first, path)
    grid = {"crs": first.crs, "transform": first.transform, "width": first.width, "height": first.height}
    if nodata is not None:  # so that the edge of nodata is not blended into the picture
        grid |= {"src_nodata": nodata, "nodata": nodata}
    with WarpedVRT(dataset, resampling=Resampling.bilinear, **grid) as warped:
        yield warped


def _check_cover(dataset: Any, first: Any, path: Path) -> None:
    """ImageError where the band lacks more of the first band's ground than one of its own pixels at an edge.

    Outside a band's file there would be zeros, which look like measurements.
    """
    from rasterio.warp import transform_bounds

    wanted = transform_bounds(first.crs, dataset.crs, *first.bounds)
    own, slack = dataset.bounds, dataset.res
    if not all(slack):
        raise ImageError(path, "its pixels have no size", "set the right transform")
    missing = max(
        (own.left - wanted[0]) / slack[0],
        (own.bottom - wanted[1]) / slack[1],
        (wanted[2] - own.right) / slack[0],
        (wanted[3] - own.top) / slack[1],
    )
    if missing > 1.01:  # a hundredth for rounding
        raise ImageError(path, "does not cover the ground of the first band", "give bands of the same ground")
