"""Scenes stored as one GeoTIFF a band: a folder is a scene, its first declared band gives the grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gfm.geopile.sources.dates import date_of_name, date_of_tags
from gfm.geopile.sources.grid import tile_corners, tile_name
from gfm.geopile.sources.listing import RASTERS, glob_regex, matching, nothing_found
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import raster_bounds, raster_gsd_m
from gfm.imagery.raster import ImageError, check_finite, open_scene, reading
from gfm.params import BandFilesSource


def list_files(name: str, source: BandFilesSource, root: Path) -> list[str]:
    """The folders, relative to the source's root, that hold a file of any declared band.

    Any, not all: a folder that lacks a band is a damaged scene, to be quarantined, not one to pass over.
    Patterns of `include` are of folders. Raises DataError when root is missing or no folder is a scene.
    """
    bands = {band.lower() for band in source.imagery.bands}
    patterns = [glob_regex(pattern) for pattern in source.include or ["**"]]
    files = matching(root, name, [], "**/*", RASTERS)
    folders = {Path(file).parent.as_posix() for file in files if _end(file) in bands}
    chosen = sorted(folder for folder in folders if any(pattern.fullmatch(folder) for pattern in patterns))
    if not chosen:
        where = f" in a folder that matches {', '.join(source.include)}" if source.include else ""
        raise nothing_found(root, name, f"`…_{next(iter(source.imagery.bands))}.tif`{where}")
    return chosen


def tile_names(source: BandFilesSource, root: Path, folder: str, tile_px: int) -> list[str]:
    """The tiles of one scene, from the header of its first band."""
    first = next(iter(_band_paths(source, root / folder).values()))
    with open_scene(first, None) as dataset:
        return [
            tile_name(folder, *corner) for corner in tile_corners(dataset.width, dataset.height, tile_px, root / folder)
        ]


def read_tiles(
    source: BandFilesSource, root: Path, folder: str, tile_px: int, only: frozenset[str] | None
) -> Iterator[Tile]:
    """The tiles of one scene, every band bilinear on the first declared band's grid.

    Raises ImageError when a band has no file or two, or when one is not a single band of the declared type.
    """
    from rasterio.windows import Window

    paths = _band_paths(source, root / folder)
    with ExitStack() as stack:
        first_path = next(iter(paths.values()))
        first = stack.enter_context(_open_band(first_path, source))
        layers = [first]
        for path in list(paths.values())[1:]:
            band = stack.enter_context(_open_band(path, source))
            layers.append(stack.enter_context(_on_grid(band, first, path, source.imagery.nodata)))
        gsd_m = declared_gsd(source.gsd_m) or raster_gsd_m(first)
        nodata = first.nodata if source.imagery.nodata is None else source.imagery.nodata
        date = date_of_name(first_path.name) or date_of_name(folder) or date_of_tags(first)
        crs = first.crs.to_string() if first.crs else None
        for left, top in tile_corners(first.width, first.height, tile_px, root / folder):
            name = tile_name(folder, left, top)
            if only is not None and name not in only:
                continue
            window = Window(left, top, tile_px, tile_px)
            pixels = np.stack(
                [_read(layer, path, window, source) for layer, path in zip(layers, paths.values(), strict=True)],
                axis=-1,
            )
            bounds = raster_bounds(first, window)
            yield Tile(name, pixels, nodata=nodata, gsd_m=gsd_m, crs=crs, date=date, bounds=bounds)


def _end(file: str) -> str:
    """What names the band: the stem after its last `_`, in lower case."""
    return Path(file).stem.rsplit("_", 1)[-1].lower()


def _band_paths(source: BandFilesSource, folder: Path) -> dict[str, Path]:
    found: dict[str, list[Path]] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in RASTERS and not path.name.startswith("."):
                found.setdefault(_end(path.name), []).append(path)
    except OSError as error:
        raise ImageError(folder, f"not readable: {(error.strerror or str(error)).lower()}", "restore it") from None
    chosen = {}
    for band in source.imagery.bands:
        paths = found.get(band.lower(), [])
        if len(paths) != 1:
            what = "no file" if not paths else f"{len(paths)} files"
            raise ImageError(folder, f"has {what} for band {band}", f"a folder holds one `…_{band}.tif`")
        chosen[band] = paths[0]
    return chosen


def _read(layer: Any, path: Path, window: Any, source: BandFilesSource) -> np.ndarray[Any, np.dtype[Any]]:
    with reading(path):
        pixels = np.asarray(layer.read(1, window=window))
    check_finite(path, pixels[..., None], source.imagery)
    return pixels


@contextmanager
def _open_band(path: Path, source: BandFilesSource) -> Iterator[Any]:
    one = source.imagery.model_copy(update={"bands": {path.stem: None}})
    with open_scene(path, one) as dataset:
        yield dataset


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
    grid = {"crs": first.crs, "transform": first.transform, "width": first.width, "height": first.height}
    if nodata is not None:  # so that the edge of nodata is not blended into the picture
        grid |= {"src_nodata": nodata, "nodata": nodata}
    with WarpedVRT(dataset, resampling=Resampling.bilinear, **grid) as warped:
        yield warped
