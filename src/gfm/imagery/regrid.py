"""A scene as if it had square pixels of so many metres in another map, still read by windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gfm.imagery.footprint import raster_bounds
from gfm.imagery.planes import interleaved
from gfm.imagery.raster import Array, ImageError, reading

_ROUNDING = 1e-3  # pixels; edges that differ by less lie on each other
_EDGE = 0.2  # of a new pixel: how far inside the scene a pixel's centre must lie to be filled surely
_POINTS = 9  # a side, when an outline is carried into another map; lines become curves there
_FINEST = 1 / 64  # a new pixel's side in the scene's own: finer is a mistake of units, and takes for ever
_FARTHEST = 2e9  # pixels; GDAL counts them in 32 bits
_UTM_SOUTH, _UTM_NORTH = -80.0, 84.0  # degrees of latitude between which there are zones


@dataclass(frozen=True)
class SquareGrid:
    """Pixels of `metres` x `metres` in `crs`, north up; their edges lie on whole multiples of `metres`."""

    crs: Any  # rasterio's
    metres: float
    left: int  # of its upper left corner, in pixels from the map's origin
    top: int
    width: int
    height: int
    coarser: float  # side of such a pixel in the scene's own pixels

    @property
    def transform(self) -> Any:
        """Its pixels to metres of the map, as rasterio's Affine."""
        from rasterio.transform import from_origin

        return from_origin(self.left * self.metres, self.top * self.metres, self.metres, self.metres)


def square_grid(path: Path, dataset: Any, metres: float, crs: str | None) -> SquareGrid:
    """The grid that covers an open scene in `crs`; None: in its own map, where that is UTM, else in its UTM zone.

    Raises ImageError where the scene has no place, or none in that map, or pixels of `metres` are larger than all of it
    or far finer than its own.
    """
    from rasterio.crs import CRS

    bounds = raster_bounds(dataset)
    if bounds is None:
        raise ImageError(path, "has no coordinate system to reproject from", "give it one, or leave resample_m out")
    if crs is not None:
        goal = CRS.from_user_input(crs)
    else:
        goal = dataset.crs if _is_utm(dataset.crs) else CRS.from_epsg(utm_zone(*bounds.centre))
    share = np.linspace(0, 1, _POINTS)
    columns = np.concatenate([share, share, np.zeros(_POINTS), np.ones(_POINTS)]) * dataset.width
    lines = np.concatenate([np.zeros(_POINTS), np.ones(_POINTS), share, share]) * dataset.height
    xs, ys = _carried(path, dataset, goal, columns, lines)
    middle = dataset.width / 2, dataset.height / 2
    near = _carried(path, dataset, goal, middle[0] + np.array([0, 1, 0]), middle[1] + np.array([0, 0, 1]))
    (right_x, down_x), (right_y, down_y) = (values[1:] - values[0] for values in near)
    own = math.sqrt(abs(right_x * down_y - right_y * down_x))
    coarser = metres / own if own > 0 else math.inf
    if not math.isfinite(coarser):
        raise ImageError(path, f"has pixels of {own:g} m in {goal.to_string()}", "set the right CRS and transform")
    west, east, south, north = float(min(xs)), float(max(xs)), float(min(ys)), float(max(ys))
    span = max(east - west, north - south)
    farthest = max(span, abs(west), abs(east), abs(south), abs(north))
    # Without a map that distorts, the first is the largest: no span is longer than both sides together.
    least = max(own * _FINEST, span / (dataset.width + dataset.height) * _FINEST, farthest / _FARTHEST)
    if metres < least * (1 - _ROUNDING):
        reason = f"has pixels of {own:g} m in {goal.to_string()}, resample_m asks for {metres:g} m"
        raise ImageError(path, reason, f"ask for {least:g} m or more, or set the right CRS and transform")
    left, right = math.ceil(west / metres - _ROUNDING), math.floor(east / metres + _ROUNDING)
    top, bottom = math.floor(north / metres + _ROUNDING), math.ceil(south / metres - _ROUNDING)
    if right <= left or top <= bottom:
        reason = f"is smaller than one pixel of {metres:g} m ({goal.to_string()})"
        raise ImageError(path, reason, "lower resample_m, or set the right CRS and transform")
    return SquareGrid(goal, metres, left, top, right - left, top - bottom, coarser)


def fitting_overview(dataset: Any, coarser: float) -> int | None:
    """The number of the smallest reduced copy that is still as fine as pixels `coarser` times as large; None: none."""
    factors = dataset.overviews(1) if dataset.count else []
    fitting = [number for number, factor in enumerate(factors) if 1 < factor <= coarser * (1 + _ROUNDING)]
    return max(fitting, key=lambda number: int(factors[number]), default=None)


@contextmanager
def reprojected(path: Path, dataset: Any, grid: SquareGrid, nodata: float | None) -> Iterator[Any]:
    """The scene on `grid`, bilinear, opened for `read_reprojected`; pixels that hold `nodata` in every band stay so."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    if nodata is not None:  # a pixel is nodata where all bands are: a black band alone is a measurement
        place |= {"src_nodata": nodata, "nodata": nodata, "UNIFIED_SRC_NODATA": "YES"}
    with reading(path), WarpedVRT(dataset, resampling=Resampling.bilinear, **place) as warped:
        try:
            yield warped
        except ImageError as error:  # the name of what is warped is none of a file
            raise ImageError(path, error.reason, error.fix) from None


def inside(path: Path, dataset: Any, grid: SquareGrid, corners: list[tuple[int, int]], px: int) -> list[bool]:
    """Whether each tile of `px` pixels, by its upper left corner in `grid`, is filled by the scene to its edges."""
    share = np.linspace(0.5, px - 0.5, _POINTS)
    first, last = np.full(_POINTS, 0.5), np.full(_POINTS, px - 0.5)
    across, down = np.concatenate([share, share, first, last]), np.concatenate([first, last, share, share])
    at = np.array(corners, dtype=np.float64).reshape(-1, 2)
    xs = (grid.left + at[:, :1] + across).ravel() * grid.metres
    ys = (grid.top - at[:, 1:] - down).ravel() * grid.metres
    own_xs, own_ys = _in_map(path, grid.crs, dataset.crs, xs, ys)
    columns, lines = ~dataset.transform @ (own_xs, own_ys)
    edge = _EDGE * grid.coarser
    fits = (columns > edge) & (columns < dataset.width - edge) & (lines > edge) & (lines < dataset.height - edge)
    return [bool(all_in) for all_in in fits.reshape(len(corners), -1).all(axis=1)]


def read_reprojected(path: Path, warped: Any, window: Any) -> Array:
    """One window of a `reprojected` scene: (H, W, C) as stored; ImageError where the scene is damaged there."""
    with reading(path):
        return interleaved(warped.read(window=window))


def utm_zone(longitude: float, latitude: float) -> int:
    """The EPSG number of the UTM zone (WGS 84) of a place; near the poles, of polar stereographic."""
    if latitude >= _UTM_NORTH:
        return 32661
    if latitude < _UTM_SOUTH:
        return 32761
    zone = int((longitude + 180) // 6) % 60 + 1
    return (32600 if latitude >= 0 else 32700) + zone


def _is_utm(crs: Any) -> bool:
    return bool(crs.to_dict(projjson=False).get("proj") == "utm") and float(crs.linear_units_factor[1]) == 1.0


def _carried(path: Path, dataset: Any, goal: Any, columns: Array, lines: Array) -> tuple[Array, Array]:
    """Pixels of the scene to x and y of the map `goal`."""
    xs, ys = dataset.transform @ (columns, lines)
    return _in_map(path, dataset.crs, goal, xs, ys)


def _in_map(path: Path, start: Any, goal: Any, xs: Array, ys: Array) -> tuple[Array, Array]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        moved = transform(start, goal, xs, ys)
    except (CRSError, CPLE_BaseError):
        moved = [[math.nan]], [[math.nan]]
    found = np.asarray(moved[0], dtype=np.float64), np.asarray(moved[1], dtype=np.float64)
    if not all(np.isfinite(values).all() for values in found):
        raise ImageError(path, f"has no place in {goal.to_string()}", "give geopile.sources.NAME.crs of its region")
    return found
