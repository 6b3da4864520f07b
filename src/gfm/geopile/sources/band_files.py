"""Scenes stored as one GeoTIFF a band: a folder is a scene, its first declared band gives the grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfm.geopile.sources.cloud_mask import open_clouds
from gfm.geopile.sources.dates import date_of_name, date_of_tags
from gfm.geopile.sources.folder import DiskFolder
from gfm.geopile.sources.grid import tile_corners, tile_name
from gfm.geopile.sources.listing import glob_regex, matching, nothing_found
from gfm.geopile.sources.suffixes import RASTERS
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.band_files import BandStack, find_bands, names_band, open_bands
from gfm.imagery.footprint import raster_bounds, raster_gsd_m, window_transform
from gfm.imagery.raster import open_scene
from gfm.params import BandFilesSource


def list_files(name: str, source: BandFilesSource, root: Path) -> list[str]:
    """The folders, relative to the source's root, that hold a file of any declared band.

    Any, not all: a folder that lacks a band is a damaged scene, to be quarantined, not one to pass over.
    Patterns of `include` are of folders. Raises DataError when root is missing or no folder is a scene.
    """
    patterns = [glob_regex(pattern) for pattern in source.include or ["**"]]
    files = map(Path, matching(DiskFolder(root), name, [], "**/*", RASTERS))
    folders = {file.parent.as_posix() for file in files if any(names_band(file, band) for band in source.imagery.bands)}
    chosen = sorted(folder for folder in folders if any(pattern.fullmatch(folder) for pattern in patterns))
    if not chosen:
        where = f" in a folder that matches {', '.join(source.include)}" if source.include else ""
        raise nothing_found(DiskFolder(root), name, f"`…_{next(iter(source.imagery.bands))}.tif`{where}")
    return chosen


def tile_names(source: BandFilesSource, root: Path, folder: str, tile_px: int) -> list[str]:
    """The tiles of one scene, from the header of its first band."""
    with open_scene(find_bands(root / folder, source.imagery)[0], None) as dataset:
        return [
            tile_name(folder, *corner) for corner in tile_corners(dataset.width, dataset.height, tile_px, root / folder)
        ]


def read_tiles(
    source: BandFilesSource, root: Path, folder: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """The tiles of one scene, every band bilinear on the first declared band's grid.

    Raises ImageError when a band has no file or two, or when one is not a single band of the declared type.
    """
    files = find_bands(root / folder, source.imagery)
    with (
        open_bands(files, source.imagery, list(source.imagery.bands)) as stack,
        open_clouds(source, root / folder, stack.first) as clouds,
    ):
        first = stack.first
        gsd_m = declared_gsd(source.gsd_m) or raster_gsd_m(first)
        nodata = first.nodata if source.imagery.nodata is None else source.imagery.nodata
        date = date_of_name(files[0].name) or date_of_name(folder) or date_of_tags(first)
        crs = first.crs.to_string() if first.crs else None
        for window in _windows(stack, root, folder, tile_px, only):
            pixels = stack.read(window)
            yield Tile(
                tile_name(folder, window.col_off, window.row_off),
                pixels,
                nodata=nodata,
                gsd_m=gsd_m,
                crs=crs,
                date=date,
                bounds=raster_bounds(first, window),
                transform=window_transform(first, window.col_off, window.row_off),
                cloud=None if clouds is None else clouds.read(window, pixels),
            )


def read_pixels(
    source: BandFilesSource, root: Path, folder: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """As `read_tiles`, but names and pixels alone."""
    with open_bands(find_bands(root / folder, source.imagery), source.imagery, list(source.imagery.bands)) as stack:
        for window in _windows(stack, root, folder, tile_px, only):
            yield Tile(tile_name(folder, window.col_off, window.row_off), stack.read(window))


def _windows(stack: BandStack, root: Path, folder: str, tile_px: int, only: frozenset[str] | None) -> Iterator[Any]:
    from rasterio.windows import Window

    for left, top in tile_corners(stack.first.width, stack.first.height, tile_px, root / folder):
        if only is None or tile_name(folder, left, top) in only:
            yield Window(left, top, tile_px, tile_px)
