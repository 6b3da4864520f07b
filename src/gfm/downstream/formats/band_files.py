"""Images stored as one GeoTIFF a band: finding the files of the declared bands, reading them on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.formats.format import entries
from gfm.downstream.sample import Window
from gfm.imagery.footprint import Bounds, raster_bounds
from gfm.imagery.raster import ImageError, open_scene, read_image, to_uint8
from gfm.params import Imagery

Size = tuple[int, int]  # height, width


def find_bands(folder: Path, imagery: Imagery) -> list[Path]:
    """The file of each declared band (`B04.tif` or `…_B04.tif`) in declared order; ImageError names what is missing."""
    files = [path for path in entries(folder) if path.suffix.lower() in (".tif", ".tiff")]
    found = []
    for band in imagery.bands:
        fitting = [path for path in files if path.stem == band or path.stem.endswith(f"_{band}")]
        if len(fitting) != 1:
            what = "no file" if not fitting else f"{len(fitting)} files"
            raise ImageError(folder, f"{what} of band {band} (*_{band}.tif)", "give one file a band")
        found.append(fitting[0])
    return found


def read_bands(
    files: Sequence[Path], imagery: Imagery, bands: Sequence[str], grid: Size | None = None
) -> NDArray[np.uint8]:
    """Read `bands` as (H, W, len(bands)) uint8, bilinearly resampled to `grid`, or to the first declared band's grid.

    `files` are in the order of the declared bands, as `find_bands` gives them.
    """
    import cv2

    stored: dict[str, NDArray[np.generic]] = {}
    for position, (file, band) in enumerate(zip(files, imagery.bands, strict=True)):
        if position and band not in bands:
            continue
        single = imagery.model_copy(update={"bands": {band: imagery.bands[band]}})
        stored[band] = read_image(file, single)[..., 0]
        if grid is None:
            grid = stored[band].shape[0], stored[band].shape[1]
    assert grid is not None
    size = (grid[1], grid[0])
    layers = [
        layer if layer.shape == grid else cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR)
        for layer in (stored[band] for band in bands)
    ]
    chosen = imagery.model_copy(update={"bands": {band: imagery.bands[band] for band in bands}})
    return to_uint8(np.stack(layers, axis=-1), chosen, list(bands))


def ground(path: Path) -> Bounds | None:
    """The ground of a whole GeoTIFF; None where it is not georeferenced."""
    with open_scene(path, None) as dataset:
        return raster_bounds(dataset)


def window_bounds(path: Path, window: Window) -> Bounds | None:
    """The ground of a window of a GeoTIFF; None where it is not georeferenced."""
    from rasterio import windows

    with open_scene(path, None) as dataset:
        return raster_bounds(dataset, windows.Window(*window))
