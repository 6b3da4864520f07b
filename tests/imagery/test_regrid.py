"""Scenes on square metres: the right ground at the right place, nothing made up, overviews where they fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform

from gfm.errors import DataError
from gfm.geopile.sources import list_files, read_tiles, tile_names
from gfm.geopile.sources.tile import Tile
from gfm.imagery.raster import ImageError
from gfm.imagery.regrid import utm_zone
from gfm.params import ScenesSource

UTM = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, 10, 10)}


def save(path: Path, pixels: np.ndarray[Any, Any], **place: Any) -> None:
    height, width, count = pixels.shape
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": count,
        "dtype": pixels.dtype,
        "tiled": True,
    }
    with rasterio.open(path, "w", **{**profile, **UTM, "blockxsize": 64, "blockysize": 64, **place}) as file:
        file.write(np.moveaxis(pixels, -1, 0))


def source(metres: float, crs: str | None = None, dtype: Any = "uint8", nodata: float | None = None) -> ScenesSource:
    imagery = {"dtype": dtype, "bands": {"A": None, "B": None}, "nodata": nodata}
    return ScenesSource(format="scenes", root=".", licence="x", resample_m=metres, crs=crs, imagery=imagery)


def tiles(root: Path, declared: ScenesSource, px: int = 32) -> dict[str, Tile]:
    found = {tile.name.partition("#")[2]: tile for tile in read_tiles(declared, root, "a.tif", px)}
    assert list(tile_names(declared, root, "a.tif", px)) == [f"a.tif#{name}" for name in found]
    return found


def noise(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(1, 255, (height, width, 2), dtype=np.uint8)


def test_a_scene_already_on_the_grid_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = noise(70, 100)
    save(tmp_path / "a.tif", pixels)
    found = tiles(tmp_path, source(10.0))
    assert list(found) == ["0,0", "32,0", "64,0", "0,32", "32,32", "64,32"]
    assert np.array_equal(found["32,32"].pixels, pixels[32:64, 32:64])
    assert found["32,32"].transform == (10.0, 0.0, 500320.0, 0.0, -10.0, 5499680.0)


def test_finer_and_coarser_pixels_show_the_same_ground(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(160) * 0.4, np.arange(160) * 0.5)
    save(tmp_path / "a.tif", np.dstack([ramp, ramp[::-1]]).astype(np.uint8))
    for metres in (5.0, 20.0, 40.0):
        for tile in tiles(tmp_path, source(metres)).values():
            assert tile.gsd_m == metres
            assert tile.transform is not None
            left, top = tile.transform[2], tile.transform[5]
            middle = (left - 500000 + 16 * metres) / 10, (5500000 - top + 16 * metres) / 10
            assert tile.pixels[15:17, 15:17, 0].mean() == pytest.approx(
                0.5 * middle[0] + 0.4 * middle[1] - 0.9, abs=1.5
            )


@pytest.mark.parametrize(("crs", "zone"), [("EPSG:4326", "EPSG:32633"), ("EPSG:3857", "EPSG:32633")])
def test_a_scene_of_another_map_comes_to_its_utm_zone_and_lies_where_it_did(
    tmp_path: Path, crs: str, zone: str
) -> None:
    west, north = (15.1, 49.6) if crs == "EPSG:4326" else (1680000, 6380000)
    step = 1e-4 if crs == "EPSG:4326" else 12.0
    columns = np.broadcast_to(np.arange(200), (200, 200))
    save(
        tmp_path / "a.tif",
        np.dstack([columns, columns.T]).astype(np.uint8),
        crs=crs,
        transform=from_origin(west, north, step, step),
    )
    found = tiles(tmp_path, source(10.0))
    assert len(found) > 4
    for tile in found.values():
        assert tile.crs == zone
        assert tile.transform is not None
        left, top = tile.transform[2], tile.transform[5]
        (x,), (y,) = transform(zone, crs, [left + 165], [top - 165])  # the middle of pixel 16, 16
        expected = ((x - west) / step - 0.5, (north - y) / step - 0.5)
        assert tile.pixels[16, 16].tolist() == pytest.approx(expected, abs=1.0)


def test_a_declared_map_is_used_and_tiles_beyond_the_slanted_edge_are_not_cut(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", np.full((300, 300, 2), 200, np.uint8), transform=from_origin(300000, 5500000, 10, 10))
    found = tiles(tmp_path, source(10.0, crs="EPSG:3035"))
    assert 20 < len(found) < 81  # 9 x 9 in the scene's own map
    assert {tile.crs for tile in found.values()} == {"EPSG:3035"}
    assert all((tile.pixels == 200).all() for tile in found.values())  # no zero from outside


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metres=st.floats(8, 40),
    crs=st.sampled_from([None, "EPSG:3035", "EPSG:3857", "EPSG:32631", "EPSG:32736"]),
    east=st.floats(170000, 830000),
    north=st.floats(1000000, 8000000),
    turn=st.floats(-180, 180),
)
def test_no_tile_holds_a_pixel_that_the_scene_does_not(
    tmp_path: Path, metres: float, crs: str | None, east: float, north: float, turn: float
) -> None:
    place = from_origin(east, north, 10, 10) @ rasterio.Affine.rotation(turn)
    save(tmp_path / "a.tif", np.full((90, 130, 2), 200, np.uint8), transform=place)
    try:
        found = tiles(tmp_path, source(metres, crs), px=16)
    except ImageError as error:
        assert "tile" in error.reason or "no place" in error.reason
        return
    for tile in found.values():
        assert (tile.pixels == 200).all()


def test_nodata_stays_and_is_not_blended_and_one_black_band_is_a_measurement(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 2), 100, np.uint8)
    pixels[:20] = 0
    pixels[40:, :, 0] = 0
    save(tmp_path / "a.tif", pixels, transform=from_origin(500003, 5500000 - 3, 10, 10))  # off the grid
    (tile,) = tiles(tmp_path, source(10.0, nodata=0)).values()
    assert tile.nodata == 0
    assert set(np.unique(tile.pixels[:19])) == {0}
    assert set(np.unique(tile.pixels[21:31])) == {100}
    big = tiles(tmp_path, source(5.0, nodata=0))["32,64"].pixels
    assert (big[-10:, :, 1] == 100).all()
    assert (big[-10:, :, 0] <= 1).all()


def test_the_file_s_overview_is_read_where_it_fits_and_not_where_it_is_too_coarse(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", np.full((256, 256, 2), 10, np.uint8))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2, 4])
    for level, value in ((0, 20), (1, 40)):  # another constant in each, so that it shows what was read
        with rasterio.open(tmp_path / "a.tif", "r+", overview_level=level) as file:
            file.write(np.full((2, file.height, file.width), value, np.uint8))

    def seen(metres: float) -> set[int]:
        return {int(value) for tile in tiles(tmp_path, source(metres)).values() for value in np.unique(tile.pixels)}

    assert [seen(metres) for metres in (10.0, 15.0, 20.0, 30.0, 40.0)] == [{10}, {10}, {20}, {20}, {40}]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_and_one_too_small_are_refused_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", noise(64, 64), crs=None, transform=rasterio.Affine.identity())
    with pytest.raises(ImageError, match="has no coordinate system to reproject from"):
        tiles(tmp_path, source(10.0))
    save(tmp_path / "a.tif", noise(64, 64))
    with pytest.raises(ImageError, match=r"smaller than one tile \(16x16 px, geopile.tile_px is 32\)"):
        tiles(tmp_path, source(40.0))


def at(west: float, north: float, side: float, crs: str = "EPSG:32633") -> dict[str, Any]:
    return {"crs": crs, "transform": from_origin(west, north, side, side)}


@pytest.mark.parametrize(
    ("place", "metres", "reason"),
    [
        (at(500000.3, 5500000.3, 1e-6), 1.0, "is smaller than one pixel of 1 m"),
        (at(500000, 5500000, 1), 1e300, "is smaller than one pixel of 1e+300 m"),
        (at(500000, 5500000, 1e6), 1.0, "has pixels of 1e+06 m in EPSG:32633, resample_m asks for 1 m"),
        (at(500000, 5500000, 1), 0.01, "has pixels of 1 m in EPSG:32633, resample_m asks for 0.01 m"),
        (at(500000, 5500000, 1), 1e-320, "has pixels of 1 m in EPSG:32633, resample_m asks for 9.99989e-321 m"),
        (at(500000, 5500000, 0.001), 0.001, "has pixels of 0.001 m"),  # five billion pixels from the equator
        (at(0, 3e8, 1, "EPSG:3857"), 1.0, "has pixels of 0 m"),
        (at(37, 122, 0.001, "EPSG:4326"), 10.0, "its coordinates give a latitude of 122 degrees"),
        (at(500000, 5500000, 1) | {"transform": rasterio.Affine(0, 0, 500000, 0, 0, 5500000)}, 1.0, "have no size"),
        (at(500000, 5500000, 1) | {"transform": rasterio.Affine(np.inf, 0, 5e5, 0, -1, 5e6)}, 1.0, "no longitude"),
    ],
)
def test_a_grid_that_no_scene_can_have_is_refused_before_it_is_walked(
    tmp_path: Path, place: dict[str, Any], metres: float, reason: str
) -> None:
    save(tmp_path / "a.tif", noise(64, 64), **place)
    for ask in (read_tiles, tile_names):
        with pytest.raises(ImageError, match=re.escape(reason)):
            next(iter(ask(source(metres), tmp_path, "a.tif", 32)))


def test_a_scene_of_one_pixel_that_covers_no_new_one_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", noise(1, 1), **at(500000.3, 5500000.3, 1))
    with pytest.raises(ImageError, match="is smaller than one pixel of 1 m"):
        tiles(tmp_path, source(1.0))


def test_pixels_64_times_finer_are_still_given(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", noise(3, 3))
    assert len(tiles(tmp_path, source(10 / 64), px=64)) == 9


def test_an_error_of_the_new_grid_names_the_scene(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", noise(64, 64), **at(500000, 5500000, 1e6))  # tiles reach beyond the map
    with pytest.raises(ImageError, match="gives no longitude and latitude") as caught:
        list(read_tiles(source(1e6), tmp_path, "a.tif", 16))
    assert caught.value.path == tmp_path / "a.tif"


def test_pixels_that_are_no_numbers_are_refused_unless_they_are_nodata(tmp_path: Path) -> None:
    pixels = np.ones((64, 64, 2), np.float32)
    pixels[5, 5] = np.nan
    save(tmp_path / "a.tif", pixels)
    with pytest.raises(ImageError, match="pixels that are NaN or infinite"):
        tiles(tmp_path, source(10.0, dtype="float32"))
    found = tiles(tmp_path, source(10.0, dtype="float32", nodata=float("nan")))
    assert np.isnan(found["0,0"].pixels[5, 5]).all()
    assert np.isnan(found["0,0"].pixels).sum() == 2


@pytest.mark.parametrize(
    ("crs", "said"),
    [
        ("EPSG:999999", "no such coordinate system"),
        ("EPSG:4326", "is no map in metres"),
        ("EPSG:2263", "is no map in metres"),
    ],
)
def test_a_map_that_has_no_metres_is_one_error(tmp_path: Path, crs: str, said: str) -> None:
    save(tmp_path / "a.tif", noise(64, 64))
    with pytest.raises(DataError, match=rf"geopile\.sources\.s\.crs = {crs}: {said}"):
        list_files("s", source(10.0, crs=crs), tmp_path)


@pytest.mark.parametrize(
    ("place", "zone"),
    [((15, 49), 32633), ((-77, 37), 32618), ((18, -34), 32734), ((180, 0), 32601), ((0, 85), 32661), ((0, -85), 32761)],
)
def test_zones_are_those_of_the_map_sheets(place: tuple[float, float], zone: int) -> None:
    assert utm_zone(*place) == zone
