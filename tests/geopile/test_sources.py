"""Each declared format finds its files and gives images with their place, date, label and resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile.sources import list_files, read_tiles, tile_names
from gfm.geopile.sources.dates import date_of_name
from gfm.geopile.sources.folder import DiskFolder
from gfm.geopile.sources.listing import glob_regex, matching
from gfm.imagery.raster import ImageError
from gfm.params import BandFilesSource, ClassFoldersSource, ImagesSource, ScenesSource

RGB = {"R": None, "G": None, "B": None}


def save_tiff(path: Path, pixels: np.ndarray[Any, Any], metres: float = 10, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, metres, metres)}
    profile = (
        {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": pixels.dtype} | place | options
    )
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))


def ramp(height: int, width: int, bands: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.arange(height * width * bands).reshape(height, width, bands).astype(np.uint8)


def test_a_scene_is_cut_into_full_tiles_only_and_no_pixel_is_in_two(tmp_path: Path) -> None:
    pixels = ramp(70, 100)
    save_tiff(tmp_path / "a/s_20190904.tif", pixels)
    source = ScenesSource(format="scenes", root=".", licence="x", imagery={"bands": RGB})
    assert list_files("s", source, tmp_path) == ["a/s_20190904.tif"]
    tiles = list(read_tiles(source, tmp_path, "a/s_20190904.tif", 32))
    names = [f"a/s_20190904.tif#{x},{y}" for y in (0, 32) for x in (0, 32, 64)]
    assert [tile.name for tile in tiles] == names == list(tile_names(source, tmp_path, "a/s_20190904.tif", 32))
    assert np.array_equal(tiles[4].pixels, pixels[32:64, 32:64])
    assert {(tile.date, tile.gsd_m, tile.crs) for tile in tiles} == {("2019-09-04", 10.0, "EPSG:32633")}
    assert tiles[0].bounds is not None
    assert tiles[1].bounds is not None
    assert tiles[0].bounds.east == pytest.approx(tiles[1].bounds.west, abs=1e-6)


def test_a_scene_below_one_tile_is_refused_with_both_sizes(tmp_path: Path) -> None:
    save_tiff(tmp_path / "a.tif", ramp(20, 100))
    source = ScenesSource(format="scenes", root=".", licence="x", imagery={"bands": RGB})
    with pytest.raises(ImageError, match=r"smaller than one tile \(100x20 px, geopile.tile_px is 32\)"):
        list(read_tiles(source, tmp_path, "a.tif", 32))


def test_nodata_and_date_of_the_files_own_tags_are_used_where_nothing_is_declared(tmp_path: Path) -> None:
    save_tiff(tmp_path / "a.tif", ramp(32, 32), nodata=7)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2016:05:04 10:11:12")
    source = ScenesSource(format="scenes", root=".", licence="x", imagery={"bands": RGB})
    (tile,) = read_tiles(source, tmp_path, "a.tif", 32)
    assert (tile.nodata, tile.date) == (7, "2016-05-04")


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("m_4709963_se_14_1_20200831.tif", "2020-08-31"),
        ("T36SYC_20171003T081739_B04.tif", "2017-10-03"),
        ("x/1985.tif", "1985"),
        ("a-2018-05-06.png", "2018-05-06"),
        ("m_20201331.tif", None),
        ("20200831123.tif", None),
        ("tile-1277168-1083840-21.png", None),
    ],
)
def test_dates_are_taken_from_names_only_where_they_are_dates(name: str, date: str | None) -> None:
    assert date_of_name(name) == date


def test_the_label_is_the_folder_and_a_range_of_resolution_its_middle(tmp_path: Path) -> None:
    for name in ("Airport/a.JPG", "harbor/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(ramp(40, 40)).save(tmp_path / name)
    (tmp_path / "harbor/.hidden.png").touch()
    source = ClassFoldersSource(format="class-folders", root=".", licence="x", gsd_m=(0.5, 2.0))
    assert list_files("c", source, tmp_path) == ["Airport/a.JPG", "harbor/b.png"]
    (tile,) = read_tiles(source, tmp_path, "Airport/a.JPG", 32)
    assert (tile.label, tile.gsd_m, tile.bounds) == ("Airport", 1.0, None)


def test_slippy_names_give_the_ground_and_others_are_refused(tmp_path: Path) -> None:
    for name in ("OAM-1277168-1083840-21.png", "other.png"):
        Image.fromarray(ramp(256, 256)).save(tmp_path / name)
    source = ImagesSource(format="images", root=".", licence="x", georeference="slippy")
    (tile,) = read_tiles(source, tmp_path, "OAM-1277168-1083840-21.png", 32)
    assert tile.bounds == pytest.approx((39.2404175, -6.0424068, 39.2405891, -6.0422361))
    assert tile.gsd_m == pytest.approx(0.0742, abs=1e-4)
    with pytest.raises(ImageError, match="its name carries no slippy-map tile numbers"):
        list(read_tiles(source, tmp_path, "other.png", 32))


@pytest.mark.parametrize("layout", ["class-folders", "images"])
def test_a_geotiff_lies_where_it_says_unless_places_are_declared_unknown(tmp_path: Path, layout: str) -> None:
    save_tiff(tmp_path / "port/a.tif", ramp(32, 32))
    kind: Any = {"class-folders": ClassFoldersSource, "images": ImagesSource}[layout]
    source = kind(format=layout, root=".", licence="x")
    (tile,) = read_tiles(source, tmp_path, "port/a.tif", 32)
    assert (tile.crs, tile.gsd_m) == ("EPSG:32633", 10.0)
    assert tile.bounds == pytest.approx((15.0, 49.6497, 15.0044, 49.6525), abs=1e-4)
    (tile,) = read_tiles(source.model_copy(update={"gsd_m": 3.0}), tmp_path, "port/a.tif", 32)
    assert tile.gsd_m == 3.0
    (tile,) = read_tiles(source.model_copy(update={"georeference": "none"}), tmp_path, "port/a.tif", 32)
    assert (tile.bounds, tile.crs, tile.gsd_m) == (None, None, None)


BANDS = BandFilesSource(
    format="band-files",
    root=".",
    licence="x",
    imagery={"dtype": "uint16", "bands": {"B04": 0.665, "B8A": 0.865}, "scale": 1e-4},
)


def test_bands_of_other_resolution_come_onto_the_first_bands_grid(tmp_path: Path) -> None:
    red = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)[..., None] * 10
    save_tiff(tmp_path / "city/imgs_1/x_20171003T0_B04.tif", red)
    save_tiff(tmp_path / "city/imgs_1/x_20171003T0_b8a.tif", np.full((32, 32, 1), 500, np.uint16), metres=20)
    save_tiff(tmp_path / "city/imgs_1/x_20171003T0_B01.tif", np.zeros((11, 11, 1), np.uint16), metres=60)
    assert list_files("b", BANDS, tmp_path) == ["city/imgs_1"]
    tiles = list(read_tiles(BANDS, tmp_path, "city/imgs_1", 32))
    assert [tile.name for tile in tiles] == [f"city/imgs_1#{x},{y}" for y in (0, 32) for x in (0, 32)]
    assert np.array_equal(tiles[3].pixels[..., 0], red[32:, 32:, 0])
    assert (tiles[0].pixels[..., 1] == 500).all()
    assert tiles[0].date == "2017-10-03"


def test_a_coarse_band_is_interpolated_not_repeated(tmp_path: Path) -> None:
    coarse = np.arange(16, dtype=np.uint16).repeat(16).reshape(16, 16).T[..., None] * 100
    save_tiff(tmp_path / "s/B04.tif", np.zeros((32, 32, 1), np.uint16))
    save_tiff(tmp_path / "s/B8A.tif", np.ascontiguousarray(coarse), metres=20)
    (tile,) = read_tiles(BANDS, tmp_path, "s", 32)
    assert tile.pixels[5, 2:6, 1].tolist() == [75, 125, 175, 225]


def test_a_scene_that_lacks_a_band_or_has_two_is_refused_by_name(tmp_path: Path) -> None:
    save_tiff(tmp_path / "a/x_B8A.tif", np.ones((32, 32, 1), np.uint16))
    save_tiff(tmp_path / "b/x_B04.tif", np.ones((32, 32, 1), np.uint16))
    save_tiff(tmp_path / "b/y_B04.tif", np.ones((32, 32, 1), np.uint16))
    assert list_files("b", BANDS, tmp_path) == ["a", "b"]
    with pytest.raises(ImageError, match=r"no file of band B04 \(\*_B04.tif\)"):
        list(read_tiles(BANDS, tmp_path, "a", 32))
    with pytest.raises(ImageError, match="2 files of band B04"):
        list(read_tiles(BANDS, tmp_path, "b", 32))


def test_the_damaged_band_is_named_not_its_neighbour(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9999, (64, 64, 1), dtype=np.uint16)
    save_tiff(tmp_path / "s/x_B04.tif", noise, compress="deflate", blockysize=16)
    save_tiff(tmp_path / "s/x_B8A.tif", noise)
    data = (tmp_path / "s/x_B04.tif").read_bytes()
    (tmp_path / "s/x_B04.tif").write_bytes(data[:-500])
    with pytest.raises(ImageError) as caught:
        list(read_tiles(BANDS, tmp_path, "s", 32))
    assert caught.value.path.name == "x_B04.tif"
    assert caught.value.reason.startswith("truncated or corrupt")


def test_include_chooses_folders_of_scenes(tmp_path: Path) -> None:
    for city in ("paris", "rome"):
        for date in ("imgs_1", "pair"):
            save_tiff(tmp_path / city / date / "x_B04.tif", np.ones((8, 8, 1), np.uint16))
    chosen = BANDS.model_copy(update={"include": ["paris/imgs_*"]})
    assert list_files("b", chosen, tmp_path) == ["paris/imgs_1"]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.tif", "a.tif", True),
        ("**/*.tif", "x/y/a.tif", True),
        ("*.tif", "x/a.tif", False),
        ("*/images/*.{png,jpg}", "kenya/images/a.jpg", True),
        ("tile_[0-3]?.png", "tile_2x.png", True),
        ("tile_[!0-3].png", "tile_2.png", False),
        ("a+(b).png", "a+(b).png", True),
    ],
)
def test_patterns_mean_what_they_do_in_a_shell(pattern: str, path: str, matches: bool) -> None:
    assert bool(glob_regex(pattern).fullmatch(path)) == matches


def test_a_folder_that_links_to_its_parent_is_not_walked_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert matching(DiskFolder(tmp_path), "s", [], "**/*", (".png",)) == ["a/x.png"]


def test_a_pattern_that_is_none_and_a_mask_that_is_every_scene_name_their_keys(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    scenes = {"format": "scenes", "root": ".", "licence": "CC0"}
    odd = ScenesSource.model_validate(scenes | {"include": ["[z-a].tif"]})
    with pytest.raises(DataError, match=r"geopile\.sources\.s\.include: \[z-a\]\.tif: is no pattern"):
        list_files("s", odd, tmp_path)
    masked = ScenesSource.model_validate(scenes | {"cloud": {"file": "*.tif", "cloud": [1]}})
    with pytest.raises(DataError, match=r"geopile\.sources\.s\.cloud\.file: every one of 1 files is a mask"):
        list_files("s", masked, tmp_path)
