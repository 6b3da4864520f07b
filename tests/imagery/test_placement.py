"""Where one raster lies in the pixels of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from gfm.imagery.placement import placed_on
from gfm.imagery.raster import ImageError


def _raster(path: Path, side: int, transform: Affine | None, crs: str | None = "EPSG:32631") -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": side, "width": side}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(np.zeros((1, side, side), np.uint8))
    return path


def _north_up(east: float, north: float, metres: float) -> Affine:
    return Affine(metres, 0, east, 0, -metres, north)


def test_the_ground_of_a_coarse_image_is_found_in_a_fine_one(tmp_path: Path) -> None:
    coarse = _raster(tmp_path / "coarse.tif", 162, _north_up(500_001, 4_599_998, 1.24))
    fine = _raster(tmp_path / "fine.tif", 650, _north_up(500_000, 4_600_000, 0.31))
    assert placed_on(coarse, fine) == pytest.approx((1 / 0.31, 2 / 0.31, 648, 648), abs=1e-4)


def test_rasters_that_are_turned_alike_are_compared_and_others_refused(tmp_path: Path) -> None:
    turned = Affine.rotation(20)
    one = _raster(tmp_path / "one.tif", 10, _north_up(500_000, 4_600_000, 4) @ turned)
    other = _raster(tmp_path / "other.tif", 40, _north_up(500_000, 4_600_000, 1) @ turned)
    straight = _raster(tmp_path / "straight.tif", 40, _north_up(500_000, 4_600_000, 1))
    assert placed_on(one, other) == pytest.approx((0, 0, 40, 40), abs=1e-4)
    with pytest.raises(ImageError, match=r"straight\.tif: is turned against one\.tif; give both north up"):
        placed_on(one, straight)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_a_place_on_earth_nothing_is_known_and_another_map_is_refused(tmp_path: Path) -> None:
    here = _raster(tmp_path / "here.tif", 10, _north_up(500_000, 4_600_000, 4))
    assert placed_on(here, _raster(tmp_path / "plain.tif", 10, None, None)) is None
    with pytest.raises(ImageError, match=r"is in EPSG:32632, here\.tif is in EPSG:32631"):
        placed_on(here, _raster(tmp_path / "there.tif", 10, _north_up(500_000, 4_600_000, 4), "EPSG:32632"))
