"""Results as GeoTIFFs: what is in the file, and that it is whole or not there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from gfm.errors import GfmError
from gfm.imagery.geotiff import TILE, Layers, Place, files_of, new_geotiff

PLACE = Place(1100, 700, rasterio.CRS.from_epsg(32631), Affine(2, 0, 500_000, 0, -2, 4_600_000))


def test_blocks_become_a_tiled_file_with_overviews_that_say_what_they_hold(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 3, (1, 700, 1100), dtype=np.uint8)
    layers = Layers("uint8", ["class"], 255, values=["sea", "land & ice", "x"], colours={0: (0, 0, 9), 1: (9, 9, 9)})
    with new_geotiff(path, PLACE, layers, {"GFM_TASK": "coast"}) as write:
        for y in range(0, 700, TILE):
            write(0, y, pixels[:, y : y + TILE])
        assert not path.exists()
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), pixels)
        assert (found.crs, found.transform) == (PLACE.crs, PLACE.transform)
        assert found.block_shapes == [(TILE, TILE)] and found.overviews(1) == [2]
        assert found.colormap(1)[1] == (9, 9, 9, 255) and found.tags()["GFM_TASK"] == "coast"
    assert sorted(tmp_path.iterdir()) == files_of(path, layers)
    assert "<Category>land &amp; ice</Category>" in (tmp_path / "a.tif.aux.xml").read_text()


def test_a_block_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), new_geotiff(path, PLACE, Layers("float32", ["m"], np.nan), {}):
        raise KeyError("model")
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"] and path.read_bytes() == b"before"


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with (
        pytest.raises(GfmError, match=r"no/a\.tif: cannot be written \(.*\); make room, or give another place"),
        new_geotiff(tmp_path / "no" / "a.tif", PLACE, Layers("float32", ["m"], None), {}),
    ):
        pass


def test_finer_pixels_begin_at_the_same_corner():
    finer = PLACE.finer(2750, 1750, Fraction(5, 2))
    assert (finer.width, finer.height) == (2750, 1750)
    assert finer.transform.almost_equals(Affine(0.8, 0, 500_000, 0, -0.8, 4_600_000))
    assert Place(10, 10).finer(20, 20, Fraction(2)) == Place(20, 20)


def test_a_scene_placed_by_ground_control_points_keeps_them(tmp_path):
    points = [GroundControlPoint(row, col, 5e5 + col, 4.6e6 - row, 1.0) for row, col in ((0, 0), (0, 8), (6, 0))]
    given = tmp_path / "given.tif"
    profile = {"driver": "GTiff", "width": 8, "height": 6, "count": 1, "dtype": "uint8"}
    with rasterio.open(given, "w", gcps=points, crs=PLACE.crs, **profile) as file:
        file.write(np.zeros((1, 6, 8), np.uint8))
    with rasterio.open(given) as file:
        place = Place.of(file)
    assert place.transform is None
    with new_geotiff(
        tmp_path / "a.tif", place.finer(20, 15, Fraction(5, 2)), Layers("uint8", ["a"], None), {}
    ) as write:
        write(0, 0, np.zeros((1, 15, 20), np.uint8))
    with rasterio.open(tmp_path / "a.tif") as found:
        gcps, crs = found.gcps
        assert crs == PLACE.crs
        assert [(p.row, p.col, p.x, p.y) for p in gcps] == [(p.row * 2.5, p.col * 2.5, p.x, p.y) for p in points]
