"""Footprints, resolutions and blocks of ground are where a map shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from gfm.imagery.footprint import (
    Bounds,
    georeference,
    ground_block,
    raster_bounds,
    raster_gsd_m,
    slippy_bounds,
    slippy_gsd_m,
    slippy_numbers,
    window_bounds,
    window_corners,
)
from gfm.imagery.raster import ImageError


def open_blank(path: Path, crs: str | None, transform: Any) -> Any:
    profile = {"driver": "GTiff", "width": 20, "height": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(np.zeros((1, 10, 20), np.uint8))
    return rasterio.open(path)


def test_names_of_slippy_tiles_are_found_and_other_numbers_are_not() -> None:
    assert slippy_numbers("OAM-1277168-1083840-21") == (1277168, 1083840, 21)
    assert slippy_numbers("18_2_3") is None  # zoom 3 has 8 columns
    assert slippy_numbers("scene-2020-31") is None
    assert slippy_numbers("a-1-1-99") is None


def test_slippy_tiles_lie_where_the_map_has_them() -> None:
    assert slippy_bounds(0, 0, 0) == pytest.approx((-180, -85.0511288, 180, 85.0511288))
    assert slippy_bounds(1, 1, 1) == pytest.approx((0, -85.0511288, 180, 0))
    assert slippy_gsd_m(2**20, 21, 256) == pytest.approx(0.0746, abs=1e-4)


@pytest.mark.parametrize(
    ("crs", "side", "metres"),
    [("EPSG:32633", 10.0, 10.0), ("EPSG:4326", 0.0001, 11.13), ("EPSG:2263", 1.0, 0.3048)],
)
def test_resolution_is_in_metres_of_ground_whatever_the_units(
    tmp_path: Path, crs: str, side: float, metres: float
) -> None:
    west, north = {"EPSG:32633": (500000, 10000), "EPSG:4326": (15, 0.0005), "EPSG:2263": (980000, 200000)}[crs]
    with open_blank(tmp_path / "a.tif", crs, from_origin(west, north, side, side)) as dataset:
        assert raster_gsd_m(dataset) == pytest.approx(metres, rel=1e-3)


def test_web_mercator_pixels_are_smaller_on_the_ground_than_they_say(tmp_path: Path) -> None:
    with open_blank(tmp_path / "a.tif", "EPSG:3857", from_origin(0, 8399737.9, 1, 1)) as dataset:  # 60 degrees north
        assert raster_gsd_m(dataset) == pytest.approx(0.5, abs=1e-3)


def test_a_window_has_its_own_bounds(tmp_path: Path) -> None:
    with open_blank(tmp_path / "a.tif", "EPSG:4326", from_origin(10, 50, 0.1, 0.1)) as dataset:
        assert raster_bounds(dataset) == pytest.approx((10, 49, 12, 50))
        assert raster_bounds(dataset, Window(5, 2, 5, 3)) == pytest.approx((10.5, 49.5, 11, 49.8))


@pytest.mark.parametrize(
    ("crs", "west", "side", "bounds"),
    [
        ("EPSG:4326", 190, 0.1, (-170, -168)),  # counted from 0 to 360
        ("EPSG:4326", -191, 0.1, (169, 171)),
        ("EPSG:4326", 179, 0.1, (179, -179)),
        ("EPSG:4326", 178, 0.1, (178, 180)),
        ("EPSG:4326", 180, 0.1, (-180, -178)),
        ("EPSG:4326", 0, 18.0, (-180, 180)),
        ("EPSG:32601", 160_000, 1000.0, (179.946, -179.875)),
    ],
)
def test_longitudes_stay_within_180_degrees(
    tmp_path: Path, crs: str, west: float, side: float, bounds: tuple[float, float]
) -> None:
    with open_blank(tmp_path / "a.tif", crs, from_origin(west, 0, side, 1 if side == 18 else side)) as dataset:
        found = raster_bounds(dataset)
    assert found is not None
    assert (found.west, found.east) == pytest.approx(bounds, abs=1e-3)


def test_only_a_tiff_with_coordinates_says_where_it_lies(tmp_path: Path) -> None:
    open_blank(tmp_path / "a.tif", "EPSG:4326", from_origin(10, 50, 0.1, 0.1)).close()
    open_blank(tmp_path / "plain.tif", None, from_origin(0, 0, 1, 1)).close()
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "b.png")
    own = georeference(tmp_path / "a.tif")
    assert own is not None
    assert own.crs == "EPSG:4326"
    assert own.bounds == pytest.approx((10, 49, 12, 50))
    assert window_bounds(tmp_path / "a.tif", (5, 2, 5, 3)) == pytest.approx((10.5, 49.5, 11, 49.8))
    assert list(window_corners(tmp_path / "a.tif", (5, 2, 5, 3))) == [
        pytest.approx(corner) for corner in ((10.5, 49.8), (11, 49.8), (11, 49.5), (10.5, 49.5))
    ]
    for name in ("plain.tif", "b.png"):
        assert georeference(tmp_path / name) is None
        assert window_bounds(tmp_path / name, (0, 0, 5, 5)) is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_without_coordinates_has_no_bounds(tmp_path: Path) -> None:
    with open_blank(tmp_path / "a.tif", None, from_origin(0, 0, 1, 1)) as dataset:
        assert raster_bounds(dataset) is None
        assert raster_gsd_m(dataset) is None


def test_coordinates_of_no_known_place_are_an_error_of_the_file(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    with (
        open_blank(tmp_path / "a.tif", local, from_origin(5, 5, 1, 1)) as dataset,
        pytest.raises(ImageError, match="gives no longitude and latitude"),
    ):
        raster_bounds(dataset)


@pytest.mark.parametrize("ask", [raster_bounds, raster_gsd_m])
def test_metres_from_the_centre_of_the_earth_are_no_place_on_a_map(tmp_path: Path, ask: Any) -> None:
    with (
        open_blank(tmp_path / "a.tif", "EPSG:4978", from_origin(1, 1, 1, 1)) as dataset,
        pytest.raises(ImageError, match="gives no longitude and latitude"),
    ):
        ask(dataset)


@pytest.mark.parametrize("ask", [raster_bounds, raster_gsd_m])
@pytest.mark.parametrize("north", [95.0, 122.0, -92.0])
def test_a_place_beyond_the_poles_is_an_error_that_speaks_of_swapped_axes(
    tmp_path: Path, north: float, ask: Any
) -> None:
    with (
        open_blank(tmp_path / "a.tif", "EPSG:4326", from_origin(37, north, 0.001, 0.001)) as dataset,
        pytest.raises(ImageError, match=rf"give a latitude of {north:g}.* degrees; .* y latitude: swap them"),
    ):
        ask(dataset)


def test_a_grid_whose_pixels_have_their_middle_on_the_pole_is_kept(tmp_path: Path) -> None:
    with open_blank(tmp_path / "a.tif", "EPSG:4326", from_origin(-180, 90.125, 0.25, 0.25)) as dataset:
        assert raster_bounds(dataset) == (-180, 87.625, -175, 90)


@pytest.mark.parametrize("ask", [raster_bounds, raster_gsd_m])
def test_pixels_without_a_size_are_an_error(tmp_path: Path, ask: Any) -> None:
    with (
        open_blank(tmp_path / "a.tif", "EPSG:32633", rasterio.Affine(0, 0, 500000, 0, 0, 5500000)) as dataset,
        pytest.raises(ImageError, match="its pixels have no size"),
    ):
        ask(dataset)


def test_the_same_ground_at_another_date_is_in_the_same_block_and_far_ground_is_not() -> None:
    here = Bounds(10.001, 50.001, 10.002, 50.002)
    shifted = Bounds(10.0010004, 50.001, 10.0020004, 50.002)
    assert ground_block(here, 2.0) == ground_block(shifted, 2.0)
    assert ground_block(here, 2.0) != ground_block(Bounds(10.051, 50.001, 10.052, 50.002), 2.0)


@given(st.floats(-180, 180), st.floats(-90, 90), st.sampled_from([0.3, 2.0, 500.0, 30000.0]))
def test_every_place_on_earth_has_a_block(longitude: float, latitude: float, km: float) -> None:
    name, size, row, column = ground_block(Bounds(longitude, latitude, longitude, latitude), km).split("-")
    assert (name, size) == ("ground", f"{km:g}km")
    assert int(row) >= 0
    assert int(column) >= 0


def test_a_footprint_across_the_antimeridian_has_its_middle_there() -> None:
    assert Bounds(179.0, 0.0, -178.0, 1.0).centre == (-179.5, 0.5)
