"""Georeferenced GeoTIFF scenes, cut into full tiles by windowed reading: memory does not grow with the scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gfm.errors import DataError
from gfm.geopile.sources.cloud_mask import open_clouds, without_masks
from gfm.geopile.sources.dates import date_of_name, date_of_tags
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.grid import tile_corners, tile_name
from gfm.geopile.sources.listing import matching
from gfm.geopile.sources.suffixes import RASTERS
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import raster_bounds, raster_gsd_m, window_transform
from gfm.imagery.raster import Array, ImageError, check_finite, read_window
from gfm.imagery.regrid import SquareGrid, fitting_overview, inside, read_reprojected, reprojected, square_grid
from gfm.params import ScenesSource


def list_files(name: str, source: ScenesSource, folder: Folder) -> list[str]:
    """The scenes of the source, relative to its root; DataError also where its `crs` is no map in metres."""
    if source.crs is not None:
        _check_map(f"geopile.sources.{name}.crs", source.crs)
    files = matching(folder, name, source.include, "**/*", RASTERS)
    scenes = without_masks(files, source.cloud)
    if not scenes:
        key = f"geopile.sources.{name}.cloud.file"
        raise DataError(f"{key}: every one of {len(files)} files is a mask by it; correct {key}")
    return scenes


def tile_names(source: ScenesSource, folder: Folder, file: str, tile_px: int) -> list[str]:
    """The tiles of one scene, from its header alone."""
    with _open(source, folder, file) as scene:
        return [tile_name(file, *corner) for corner in scene.corners(tile_px)]


def read_tiles(
    source: ScenesSource, folder: Folder, file: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """The tiles of one scene (those named in `only`, when given) with place, date and resolution.

    Nodata is what the source declares, else what the file's own tag says. With `resample_m`, tiles are cut from the
    scene in its new map, and `#x,y` counts pixels there.
    """
    with _open(source, folder, file) as scene:
        gsd_m = source.resample_m or declared_gsd(source.gsd_m) or raster_gsd_m(scene.dataset)
        date = date_of_name(file) or date_of_tags(scene.dataset)
        with scene.opened(folder, file) as grid, open_clouds(source, scene.path, scene.dataset) as clouds:
            crs = grid.crs.to_string() if grid.crs else None
            for window in scene.windows(file, tile_px, only):
                pixels = scene.read(grid, window)
                yield Tile(
                    tile_name(file, window.col_off, window.row_off),
                    pixels,
                    nodata=scene.nodata,
                    gsd_m=gsd_m,
                    crs=crs,
                    date=date,
                    bounds=raster_bounds(grid, window),
                    transform=window_transform(grid, window.col_off, window.row_off),
                    cloud=None if clouds is None else clouds.read(window, pixels),
                )


def read_pixels(
    source: ScenesSource, folder: Folder, file: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """As `read_tiles`, but names and pixels alone: the ground of a tile takes a third of the time of its pixels."""
    with _open(source, folder, file) as scene, scene.opened(folder, file) as grid:
        for window in scene.windows(file, tile_px, only):
            yield Tile(tile_name(file, window.col_off, window.row_off), scene.read(grid, window))


@dataclass(frozen=True)
class _Scene:
    """An open scene, and the grid that its tiles are cut from where that is not its own."""

    source: ScenesSource
    path: Path
    dataset: Any
    grid: SquareGrid | None

    @property
    def nodata(self) -> float | None:
        declared = self.source.imagery.nodata
        return self.dataset.nodata if declared is None else declared

    def corners(self, tile_px: int) -> Iterator[tuple[int, int]]:
        """Of every full tile; in a new map also those are not full that reach beyond the scene's slanted edge."""
        if self.grid is None:
            yield from tile_corners(self.dataset.width, self.dataset.height, tile_px, self.path)
            return
        found = False
        every = tile_corners(self.grid.width, self.grid.height, tile_px, self.path)
        for _, row in groupby(every, key=lambda corner: corner[1]):
            corners = list(row)
            fits = inside(self.path, self.dataset, self.grid, corners, tile_px)
            found = found or any(fits)
            yield from (corner for corner, fit in zip(corners, fits, strict=True) if fit)
        if not found:
            reason = f"holds no whole tile of {tile_px} px of {self.grid.metres:g} m ({self.grid.crs.to_string()})"
            raise ImageError(self.path, reason, "lower geopile.tile_px or resample_m")

    def windows(self, file: str, tile_px: int, only: frozenset[str] | None) -> Iterator[Any]:
        """rasterio's windows of the full tiles (those named in `only`, when given)."""
        from rasterio.windows import Window

        for left, top in self.corners(tile_px):
            if only is None or tile_name(file, left, top) in only:
                yield Window(left, top, tile_px, tile_px)

    @contextmanager
    def opened(self, folder: Folder, file: str) -> Iterator[Any]:
        """The dataset that windows are read from; of a new grid, over the file's own reduced copy where one fits."""
        if self.grid is None:
            yield self.dataset
            return
        with ExitStack() as stack:
            dataset = self.dataset
            overview = fitting_overview(dataset, self.grid.coarser)
            if overview is not None:
                dataset = stack.enter_context(folder.scene(file, self.source.imagery, overview))
            yield stack.enter_context(reprojected(self.path, dataset, self.grid, self.nodata))

    def read(self, grid: Any, window: Any) -> Array:
        if self.grid is None:
            return read_window(grid, self.source.imagery, window)
        pixels = read_reprojected(self.path, grid, window)
        check_finite(self.path, pixels, self.source.imagery)
        return pixels


@contextmanager
def _open(source: ScenesSource, folder: Folder, file: str) -> Iterator[_Scene]:
    path = folder.path(file)
    with folder.scene(file, source.imagery) as dataset:
        grid = None
        if source.resample_m is not None:
            grid = square_grid(path, dataset, source.resample_m, source.crs)
        yield _Scene(source, path, dataset, grid)


def _check_map(key: str, crs: str) -> None:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        goal = CRS.from_user_input(crs)
    except CRSError:
        raise DataError(f"{key} = {crs}: no such coordinate system") from None
    if not goal.is_projected or float(goal.linear_units_factor[1]) != 1.0:
        raise DataError(f"{key} = {crs}: is no map in metres; choose one, or leave it out for each scene's UTM zone")
