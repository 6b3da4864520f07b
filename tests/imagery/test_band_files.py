"""One GeoTIFF a band: the right file for each band, all on one grid, and nothing made up where a file ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from gfm.imagery.band_files import find_bands, of_bands, open_bands, read_bands
from gfm.imagery.raster import ImageError
from gfm.params import Imagery

IMAGERY = Imagery(dtype="uint16", bands={"B04": 0.665, "B8A": 0.865, "B01": 0.443}, scale=1e-4)
RED = np.add.outer(np.arange(12), np.arange(12)).astype(np.uint16) * 100 + 1


def save(
    path: Path, pixels: np.ndarray[Any, Any], metres: float = 10, east: float = 500_000, crs: str | None = "EPSG:32633"
) -> Path:
    height, width = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": pixels.dtype, "crs": crs}
    with rasterio.open(path, "w", transform=from_origin(east, 5_500_000, metres, metres), **profile) as file:
        file.write(pixels, 1)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        save(tmp_path / "x_B04.tif", RED),
        save(tmp_path / "x_b8a.TIF", np.full((6, 6), 500, np.uint16), metres=20),
        save(tmp_path / "B01.tif", np.full((2, 2), 700, np.uint16), metres=60),
    ]


def test_files_are_in_the_declared_order_whatever_their_case(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "._x_B04.tif").write_bytes(b"hidden")
    (tmp_path / "x_B04.txt").write_bytes(b"no image")
    assert find_bands(tmp_path, IMAGERY) == files
    save(tmp_path / "y_B04.tif", RED)
    with pytest.raises(ImageError, match=r"2 files of band B04 \(\*_B04\.tif\); give one file a band"):
        find_bands(tmp_path, IMAGERY)
    with pytest.raises(ImageError, match="no file of band 04 "):
        find_bands(tmp_path, IMAGERY.model_copy(update={"bands": {"04": None, "B04": None}}))
    with pytest.raises(ImageError, match="no such file"):
        find_bands(tmp_path / "gone", IMAGERY)


def test_bands_are_chosen_by_name_on_the_grid_of_the_first_declared_one(files: list[Path]) -> None:
    pixels = read_bands(files, IMAGERY, ["B01", "B04"])
    assert pixels.shape == (12, 12, 2)
    assert (pixels[..., 0] == 700).all()
    assert np.array_equal(pixels[..., 1], RED)
    assert read_bands(files, IMAGERY, ["B8A"]).shape == (12, 12, 1)
    assert list(of_bands(IMAGERY, ["B01", "B04"]).bands) == ["B01", "B04"]


def test_windows_of_a_stack_are_what_the_whole_has(files: list[Path]) -> None:
    from rasterio.windows import Window

    bands = list(IMAGERY.bands)
    whole = read_bands(files, IMAGERY, bands)
    with open_bands(files, IMAGERY, bands) as stack:
        assert np.array_equal(stack.read(Window(3, 5, 6, 4)), whole[5:9, 3:9])


def test_a_band_of_other_ground_is_refused_and_not_filled_with_zeros(files: list[Path]) -> None:
    """Where a band's file ends, the rest of the picture was filled with zeros, which look like measurements."""
    save(files[1], np.full((6, 6), 500, np.uint16), metres=20, east=500_060)
    with pytest.raises(ImageError, match=r"x_b8a\.TIF: does not cover the ground of the first band"):
        read_bands(files, IMAGERY, ["B04", "B8A"])


def test_bands_of_different_size_need_coordinates(files: list[Path]) -> None:
    save(files[1], np.full((6, 6), 500, np.uint16), crs=None)
    with pytest.raises(ImageError, match="has another grid than the first band, and no coordinate system"):
        read_bands(files, IMAGERY, ["B04", "B8A"])


def test_a_band_of_another_type_is_refused_by_name(files: list[Path]) -> None:
    save(files[2], np.zeros((2, 2), np.uint8), metres=60)
    with pytest.raises(ImageError, match=r"B01\.tif: is uint8, declared uint16"):
        read_bands(files, IMAGERY, ["B04", "B01"])
