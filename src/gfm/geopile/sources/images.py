"""Flat folders of images, placed on Earth by their own coordinates or by slippy-map tile numbers in their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.geopile.sources.dates import date_of_name
from gfm.geopile.sources.listing import PICTURES, matching
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import georeference, slippy_bounds, slippy_gsd_m, slippy_numbers
from gfm.imagery.raster import ImageError, read_image
from gfm.params import ImagesSource


def list_files(name: str, source: ImagesSource, root: Path) -> list[str]:
    """Every image at any depth, relative to the source's root."""
    return matching(root, name, source.include, "**/*", PICTURES)


def read_tiles(source: ImagesSource, root: Path, file: str) -> Iterator[Tile]:
    """The whole image with its ground, as the file says, or its name with `georeference: slippy`.

    Raises ImageError when slippy-map numbers are declared and the name carries none.
    """
    nodata, gsd_m = source.imagery.nodata, declared_gsd(source.gsd_m)
    if source.georeference != "slippy":
        pixels = read_image(root / file, source.imagery)
        own = georeference(root / file) if source.georeference == "file" else None
        if own is None:
            yield Tile(file, pixels, nodata=nodata, gsd_m=gsd_m, date=date_of_name(file))
            return
        date = date_of_name(file)
        yield Tile(file, pixels, nodata=nodata, gsd_m=gsd_m or own.gsd_m, crs=own.crs, date=date, bounds=own.bounds)
        return
    numbers = slippy_numbers(Path(file).stem)
    if numbers is None:
        fix = "rename it to NAME-X-Y-ZOOM, or set georeference: file"
        raise ImageError(root / file, "its name carries no slippy-map tile numbers", fix)
    pixels = read_image(root / file, source.imagery)
    x, y, zoom = numbers
    yield Tile(
        file,
        pixels,
        nodata=nodata,
        gsd_m=gsd_m or slippy_gsd_m(y, zoom, pixels.shape[1]),
        crs="EPSG:3857",
        bounds=slippy_bounds(x, y, zoom),
    )
