"""What class most of an image's ground is, whatever the maps of the image and of the raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds

from gfm.imagery import land_cover
from gfm.imagery.footprint import Bounds
from gfm.imagery.land_cover import UNKNOWN, Footprint, Legend, main_classes, read_map
from gfm.imagery.raster import ImageError

TREE, WATER, TOWN = 0, 1, 2
LEGEND = Legend({10: TREE, 80: WATER, 50: TOWN}, nodata=0, key="geopile.land_cover")
UTM = "EPSG:32633"


def raster(path: Path, pixels: Any, place: Affine, crs: str | None = "EPSG:4326", **more: Any) -> Path:
    """A classified GeoTIFF of (H, W) or (bands, H, W)."""
    bands = np.asarray(pixels, more.pop("dtype", np.uint8))
    bands = bands[None] if bands.ndim == 2 else bands
    profile = {"driver": "GTiff", "width": bands.shape[2], "height": bands.shape[1], "count": len(bands)}
    with rasterio.open(path, "w", dtype=bands.dtype, crs=crs, transform=place, **profile, **more) as file:
        file.write(bands)
    return path


def footprint(place: Affine, px: int, crs: str = UTM) -> Footprint:
    corners = [place @ corner for corner in ((0, 0), (px, 0), (px, px), (0, px))]
    xs, ys = zip(*corners, strict=True)
    west, south, east, north = transform_bounds(crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys))
    return Footprint(Bounds(west, south, east - 360 if east > 180 else east, north), crs, tuple(place)[:6], px, px)


def found(images: list[Footprint], *paths: Path, legend: Legend = LEGEND) -> list[int]:
    return main_classes(images, [read_map(path) for path in paths], legend)


def degrees(tmp_path: Path, name: str = "map.tif", west: float = 14.9, east: float = 15.1) -> Path:
    """Trees west of 15 degrees, water east of it, 50 to 50.2 degrees north."""
    columns = round((east - west) / 0.001)
    pixels = np.full((200, columns), 80)
    pixels[:, : max(round((15 - west) / 0.001), 0)] = 10
    return raster(tmp_path / name, pixels, from_origin(west, 50.2, 0.001, 0.001))


def at(longitude: float, latitude: float = 50.1, metres: float = 10, px: int = 64) -> Footprint:
    """An image in UTM whose middle is there."""
    (x,), (y,) = transform("EPSG:4326", UTM, [longitude], [latitude])
    return footprint(from_origin(x - metres * px / 2, y + metres * px / 2, metres, metres), px)


@pytest.mark.parametrize(("longitude", "expected"), [(14.95, TREE), (15.05, WATER), (14.999, TREE), (15.001, WATER)])
def test_the_class_of_most_of_the_ground_is_read_from_a_raster_in_another_map(
    tmp_path: Path, longitude: float, expected: int
) -> None:
    assert found([at(longitude)], degrees(tmp_path)) == [expected]


def test_a_raster_in_metres_and_an_image_in_degrees(tmp_path: Path) -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:3035", [15.0], [50.1])
    map_ = raster(tmp_path / "m.tif", np.full((400, 400), 50), from_origin(x - 20000, y + 20000, 100, 100), "EPSG:3035")
    image = footprint(from_origin(15.0, 50.1, 1e-4, 1e-4), 64, "EPSG:4326")
    assert found([image], map_) == [TOWN]


def test_halves_in_two_files_count_together_and_overlap_counts_once(tmp_path: Path) -> None:
    west, east = degrees(tmp_path, "a.tif", east=15.0), degrees(tmp_path, "b.tif", west=15.0)
    images = [at(14.9998), at(15.0002), at(14.95), at(15.05)]
    assert found(images, west, east) == [TREE, WATER, TREE, WATER]
    town = raster(tmp_path / "c.tif", np.full((200, 200), 50), from_origin(14.9, 50.2, 0.001, 0.001))
    assert found(images, west, east, town) == found(images, west, east)
    assert found(images, town, west, east) == [TOWN] * 4


def test_ground_that_no_raster_knows_is_unknown_unless_most_of_it_is_known(tmp_path: Path) -> None:
    known = degrees(tmp_path, east=15.0)
    assert found([at(20.0), at(15.002), at(14.998)], known) == [UNKNOWN, UNKNOWN, TREE]
    nothing = raster(tmp_path / "n.tif", np.zeros((200, 200)), from_origin(14.9, 50.2, 0.001, 0.001))
    assert found([at(14.95)], nothing) == [UNKNOWN]
    assert found([at(14.95)], nothing, known) == [TREE]  # the next file fills what the first leaves open


def test_the_nodata_that_a_file_declares_is_no_class(tmp_path: Path) -> None:
    pixels = np.full((200, 200), 250)
    map_ = raster(tmp_path / "nlcd.tif", pixels, from_origin(14.9, 50.2, 0.001, 0.001), nodata=250)
    assert found([at(15.0)], map_) == [UNKNOWN]


def test_an_image_across_the_antimeridian_is_read_on_both_sides_and_not_round_the_earth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((20, 3600), 50)
    pixels[:, :10], pixels[:, -10:] = 80, 10
    world = raster(tmp_path / "world.tif", pixels, from_origin(-180, 1, 0.1, 0.1))
    mercator = Affine(100, 0, 20037508.34 - 4000, 0, -100, 3200)  # 4 km west of 180 degrees, 2.4 km east
    images = [Footprint(Bounds(179.964, -0.029, -179.978, 0.029), "EPSG:3857", tuple(mercator)[:6], 64, 64)]
    on = from_origin(179.99, 0.032, 0.001, 0.001)  # in degrees that run on past 180
    images.append(Footprint(Bounds(179.99, -0.032, -179.946, 0.032), "EPSG:4326", tuple(on)[:6], 64, 64))
    windows: list[Any] = []

    class Spy:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getattr__(self, name: str) -> Any:
            return getattr(self.dataset, name)

        def read(self, band: int, window: Any) -> Any:
            windows.append(window)
            return self.dataset.read(band, window=window)

    values = land_cover._values
    monkeypatch.setattr(land_cover, "_values", lambda dataset, *points: values(Spy(dataset), *points))
    assert found(images, world) == [TREE, WATER]
    assert sum(window.width * window.height for window in windows) < 1000
    from_zero = raster(tmp_path / "zero.tif", np.roll(pixels, 1800, axis=1), from_origin(0, 1, 0.1, 0.1))
    assert found(images, from_zero) == [TREE, WATER]


@settings(max_examples=25, deadline=None)
@given(turn=st.floats(0, 360), metres=st.floats(1, 60), longitude=st.floats(14.97, 15.03))
def test_a_turned_image_gets_the_class_of_its_own_ground(
    tmp_path_factory: pytest.TempPathFactory, turn: float, metres: float, longitude: float
) -> None:
    """Turned about its middle a square shows as much on either side of a line that does not pass its middle closely."""
    folder = tmp_path_factory.mktemp("turned")
    (x,), (y,) = transform("EPSG:4326", UTM, [longitude], [50.1])
    place = (
        Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(metres, -metres) @ Affine.translation(-32, -32)
    )
    side = 64 * metres / 71700  # degrees of longitude here
    if abs(longitude - 15) > 0.1 * side:
        assert found([footprint(place, 64)], degrees(folder)) == [TREE if longitude < 15 else WATER]


def test_a_window_larger_than_may_be_read_at_once_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [at(14.98, metres=300), at(15.03, metres=300)]
    whole = found(images, degrees(tmp_path))
    monkeypatch.setattr(land_cover, "_MOST_PX", 9)
    assert found(images, degrees(tmp_path)) == whole == [TREE, WATER]


def test_a_value_without_a_name_is_an_error_that_names_it_and_the_file_only_where_an_image_lies(tmp_path: Path) -> None:
    pixels = np.full((200, 200), 10)
    pixels[:, 150:] = 95
    map_ = raster(tmp_path / "map.tif", pixels, from_origin(14.9, 50.2, 0.001, 0.001))
    assert found([at(14.95)], map_) == [TREE]
    with pytest.raises(ImageError, match=r"map\.tif: holds 95, which geopile\.land_cover\.classes does not name; name"):
        found([at(15.08)], map_)


@pytest.mark.parametrize(
    ("pixels", "more", "reason"),
    [
        (np.zeros((3, 8, 8)), {}, r"m\.tif: has 3 bands of uint8; a map of classes is one band"),
        (np.zeros((8, 8)), {"dtype": np.float32}, r"m\.tif: has 1 band of float32"),
        (np.zeros((8, 8)), {"crs": None}, r"m\.tif: does not say where it lies; give it a coordinate system"),
        (np.zeros((8, 8)), {"crs": 'LOCAL_CS["site"]'}, r"m\.tif: its coordinate system gives no longitude"),
    ],
)
def test_what_is_no_map_of_classes_is_refused(tmp_path: Path, pixels: Any, more: dict[str, Any], reason: str) -> None:
    crs = more.pop("crs", "EPSG:4326")
    crs = CRS.from_wkt(crs) if crs and crs.startswith("LOCAL") else crs
    path = raster(tmp_path / "m.tif", pixels, from_origin(14.9, 50.2, 0.001, 0.001), crs, **more)
    with pytest.raises(ImageError, match=reason):
        read_map(path)
    (tmp_path / "t.tif").write_text("no raster")
    with pytest.raises(ImageError, match=r"t\.tif: not a TIFF image"):
        read_map(tmp_path / "t.tif")
