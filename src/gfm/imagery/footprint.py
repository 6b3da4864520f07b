"""Where an image lies on Earth: bounds in degrees, slippy-map tile numbers, metres a pixel, blocks of ground.

Degrees are rounded to 7 decimals (about a centimetre), so that they are the same whichever maths library computed them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from gfm.imagery.raster import ImageError, file_head, is_tiff, open_scene, open_scene_data

EARTH_KM = 40075.016686  # round the equator, WGS 84
_KM_PER_DEGREE = EARTH_KM / 360
_DEGREE_DECIMALS = 7
FULL_TURN = 360.0  # degrees of longitude
POLE = 90.0  # degrees of latitude
_ROUNDING = 1e-6  # of a pixel

# As rasterio's Affine: x = a column + b line + c and y = d column + e line + f of a pixel's upper left corner.
Transform = tuple[float, float, float, float, float, float]
Corners = tuple[tuple[float, float], ...]  # longitude and latitude, degrees, round the outline


class Bounds(NamedTuple):
    """Degrees of WGS 84; west is greater than east where the footprint crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle, degrees."""
        east = self.east + 360 if self.east < self.west else self.east
        longitude = (self.west + east) / 2
        return (longitude - 360 if longitude > 180 else longitude), (self.south + self.north) / 2


class Georeference(NamedTuple):
    """What a file itself says of its ground."""

    bounds: Bounds
    gsd_m: float
    crs: str
    transform: Transform


def slippy_numbers(stem: str) -> tuple[int, int, int] | None:
    """x, y and zoom of a file stem that ends in `-X-Y-ZOOM` (or `_X_Y_ZOOM`); None where it does not name a tile."""
    found = re.search(r"(?:^|[-_])(\d+)[-_](\d+)[-_](\d+)$", stem)
    if found is None:
        return None
    x, y, zoom = (int(number) for number in found.groups())
    return (x, y, zoom) if zoom <= 30 and max(x, y) < 2**zoom else None


def slippy_bounds(x: int, y: int, zoom: int) -> Bounds:
    """The ground of one slippy-map (web mercator) tile."""

    def latitude(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / 2**zoom))))

    return _rounded(x / 2**zoom * 360 - 180, latitude(y + 1), (x + 1) / 2**zoom * 360 - 180, latitude(y))


def slippy_gsd_m(y: int, zoom: int, width: int) -> float:
    """Metres a pixel of a tile `width` pixels wide, at the latitude of its middle."""
    latitude = math.atan(math.sinh(math.pi * (1 - 2 * (y + 0.5) / 2**zoom)))
    return EARTH_KM * 1000 * math.cos(latitude) / float(2**zoom) / width


def slippy_transform(x: int, y: int, zoom: int, width: int, height: int) -> Transform:
    """Pixels of a tile to metres of EPSG:3857."""
    side = EARTH_KM * 1000 / float(2**zoom)
    half = EARTH_KM * 1000 / 2
    return (side / width, 0.0, x * side - half, 0.0, -side / height, half - y * side)


def georeference(path: Path) -> Georeference | None:
    """The ground of a whole image file; None where it is no TIFF or is not georeferenced.

    Raises ImageError where the file cannot be read, or its coordinate system is no map (see `raster_bounds`).
    """
    if not is_tiff(file_head(path)):
        return None
    with open_scene(path, None) as dataset:
        return _raster_georeference(dataset)


def georeference_data(data: bytes, path: Path) -> Georeference | None:
    """As `georeference`, of a file's bytes; `path` only names it in an ImageError."""
    if not is_tiff(data):
        return None
    with open_scene_data(data, None, path) as dataset:
        return _raster_georeference(dataset)


def window_bounds(path: Path, window: tuple[int, int, int, int]) -> Bounds | None:
    """The ground of a window (x, y, width, height) of an image file; None and errors as of `georeference`."""
    from rasterio.windows import Window

    if not is_tiff(file_head(path)):
        return None
    with open_scene(path, None) as dataset:
        return raster_bounds(dataset, Window(*window))


def window_corners(path: Path, window: tuple[int, int, int, int]) -> Corners:
    """The four corners of a window (x, y, width, height) of a georeferenced GeoTIFF, in degrees."""
    with open_scene(path, None) as dataset:
        return _corners(dataset, window)


def window_corners_data(data: bytes, path: Path, window: tuple[int, int, int, int]) -> Corners:
    """As `window_corners`, of a file's bytes; `path` only names it in an ImageError."""
    with open_scene_data(data, None, path) as dataset:
        return _corners(dataset, window)


def _corners(dataset: Any, window: tuple[int, int, int, int]) -> Corners:
    from rasterio.warp import transform

    x, y, width, height = window
    pixels = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    a, b, c, d, e, f = dataset.transform[:6]
    xs = [c + a * column + b * line for column, line in pixels]
    ys = [f + d * column + e * line for column, line in pixels]
    return tuple(zip(*transform(dataset.crs, "EPSG:4326", xs, ys), strict=True))


def raster_bounds(dataset: Any, window: Any = None) -> Bounds | None:
    """The ground of a window (None: all) of an open rasterio dataset; None where it is not georeferenced.

    Raises ImageError when the coordinate system is no map of longitude and latitude (local, or geocentric: metres from
    the centre of the Earth), when the place is beyond a pole, and when pixels have no size.
    """
    from rasterio._err import CPLE_BaseError  # rasterio lets these through where PROJ finds no way
    from rasterio.errors import CRSError
    from rasterio.warp import transform_bounds
    from rasterio.windows import Window

    if not _georeferenced(dataset):
        return None
    window = window or Window(0, 0, dataset.width, dataset.height)
    if dataset.transform.determinant == 0:
        raise ImageError(dataset.name, "its pixels have no size", "set the right transform")
    a, b, c, d, e, f = dataset.transform[:6]
    columns = (window.col_off, window.col_off + window.width)
    lines = (window.row_off, window.row_off + window.height)
    xs = [c + a * column + b * line for column in columns for line in lines]
    ys = [f + d * column + e * line for column in columns for line in lines]
    try:
        if not (dataset.crs.is_geographic or dataset.crs.is_projected):
            raise CRSError("no map")
        bounds = transform_bounds(dataset.crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys))
    except (CRSError, CPLE_BaseError):
        bounds = (math.nan,) * 4
    if not all(map(math.isfinite, bounds)):
        raise ImageError(dataset.name, "its coordinate system gives no longitude and latitude", "set the right CRS")
    west, south, east, north = bounds
    beyond = max(north, -south) - POLE
    if beyond > (abs(d) + abs(e)) / 2 * (1 + _ROUNDING):  # half a pixel is beyond where its middle is the pole
        reason = f"its coordinates give a latitude of {north if north > POLE else south:g} degrees"
        raise ImageError(dataset.name, reason, "x is longitude, y latitude: swap them, or set the right CRS")
    return _rounded(*_wrapped(west, max(south, -POLE), east, min(north, POLE)))


def raster_gsd_m(dataset: Any) -> float | None:
    """Metres of ground a pixel of an open rasterio dataset, in its middle; None and errors as of `raster_bounds`."""
    bounds = raster_bounds(dataset)
    if bounds is None:
        return None
    transform = dataset.transform
    side = math.sqrt(abs(transform.a * transform.e - transform.b * transform.d))
    shrink = math.cos(math.radians(bounds.centre[1]))
    if dataset.crs.is_geographic:
        return side * _KM_PER_DEGREE * 1000 * math.sqrt(shrink)  # degrees of longitude are shorter, of latitude are not
    side *= float(dataset.crs.linear_units_factor[1])
    return side * shrink if dataset.crs.to_epsg() == 3857 else side  # web mercator's metres grow towards the poles


def ground_block(bounds: Bounds, km: float) -> str:
    """The name of the block of ground, about km x km, that the middle of `bounds` lies in.

    Rows are bands of latitude; each is cut into a whole number of columns, so blocks do not overlap anywhere on Earth.
    """
    longitude, latitude = bounds.centre
    row = math.floor((latitude + 90) * _KM_PER_DEGREE / km)
    middle = min((row + 0.5) * km / _KM_PER_DEGREE - 90, 90.0)
    # Rounded, because cosines differ in their last bit between machines.
    round_km = round(EARTH_KM * math.cos(math.radians(middle)), 3)
    columns = max(1, math.floor(round_km / km))
    column = math.floor((longitude + 180) / 360 * columns) % columns
    return f"ground-{km:g}km-{row}-{column}"


def file_block(path: Path, km: float) -> str | None:
    """The block of ground that a whole image file lies in; None and errors as of `georeference`."""
    ground = georeference(path)
    return None if ground is None else ground_block(ground.bounds, km)


def _wrapped(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """Longitudes between -180 and 180, for maps that count 0 to 360 or run on past the antimeridian."""
    if west > east:  # as PROJ gives what crosses it
        east += FULL_TURN
    if east - west >= FULL_TURN:
        return -180.0, south, 180.0, north
    turns = math.floor((west + 180) / FULL_TURN) * FULL_TURN
    west, east = west - turns, east - turns
    return west, south, east if east <= 180 else east - FULL_TURN, north


def _raster_georeference(dataset: Any) -> Georeference | None:
    bounds, gsd_m = raster_bounds(dataset), raster_gsd_m(dataset)
    transform = window_transform(dataset, 0, 0)
    if bounds is None or gsd_m is None or transform is None:
        return None
    return Georeference(bounds, gsd_m, dataset.crs.to_string(), transform)


def window_transform(dataset: Any, left: float, top: float) -> Transform | None:
    """The transform of the part of an open rasterio dataset that begins at this pixel; None as of `raster_bounds`."""
    if not _georeferenced(dataset):
        return None
    a, b, c, d, e, f = dataset.transform[:6]
    return (a, b, c + a * left + b * top, d, e, f + d * left + e * top)


def _georeferenced(dataset: Any) -> bool:
    return dataset.crs is not None and not dataset.transform.is_identity


def _rounded(west: float, south: float, east: float, north: float) -> Bounds:
    return Bounds(*(round(degree, _DEGREE_DECIMALS) + 0.0 for degree in (west, south, east, north)))
