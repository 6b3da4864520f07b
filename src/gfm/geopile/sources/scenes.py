"""Georeferenced GeoTIFF scenes, cut into full tiles by windowed reading (the file is opened once)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.geopile.sources.cloud_mask import open_clouds, without_masks
from gfm.geopile.sources.dates import date_of_name, date_of_tags
from gfm.geopile.sources.grid import tile_corners, tile_name
from gfm.geopile.sources.listing import RASTERS, matching
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import raster_bounds, raster_gsd_m
from gfm.imagery.raster import open_scene, read_window
from gfm.params import ScenesSource


def list_files(name: str, source: ScenesSource, root: Path) -> list[str]:
    """The scenes of the source, relative to its root."""
    return without_masks(matching(root, name, source.include, "**/*", RASTERS), source.cloud)


def tile_names(source: ScenesSource, root: Path, file: str, tile_px: int) -> list[str]:
    """The tiles of one scene, from its header alone."""
    with open_scene(root / file, source.imagery) as dataset:
        return [
            tile_name(file, *corner) for corner in tile_corners(dataset.width, dataset.height, tile_px, root / file)
        ]


def read_tiles(
    source: ScenesSource, root: Path, file: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """The tiles of one scene (those named in `only`, when given) with place, date and resolution.

    Nodata is what the source declares, else what the file's own tag says.
    """
    from rasterio.windows import Window

    with (
        open_scene(root / file, source.imagery) as dataset,
        open_clouds(source, root / file, dataset) as clouds,
    ):
        gsd_m = declared_gsd(source.gsd_m) or raster_gsd_m(dataset)
        nodata = dataset.nodata if source.imagery.nodata is None else source.imagery.nodata
        date = date_of_name(file) or date_of_tags(dataset)
        crs = dataset.crs.to_string() if dataset.crs else None
        for left, top in tile_corners(dataset.width, dataset.height, tile_px, root / file):
            name = tile_name(file, left, top)
            if only is not None and name not in only:
                continue
            window = Window(left, top, tile_px, tile_px)
            pixels = read_window(dataset, source.imagery, window)
            bounds = raster_bounds(dataset, window)
            cloud = None if clouds is None else clouds.read(window, pixels)
            yield Tile(name, pixels, nodata=nodata, gsd_m=gsd_m, crs=crs, date=date, bounds=bounds, cloud=cloud)
