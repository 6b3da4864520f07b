"""What train, validation and test of one task share: the same ground, pictures that look alike."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from rasterio.warp import transform_bounds

from gfm.downstream.across_parts import near_duplicates, same_ground
from gfm.downstream.sample import Sample
from gfm.downstream.table import read_index
from gfm.imagery.footprint import Bounds
from gfm.imagery.hashing import dihedral_dhashes


def _meta(workplace):
    return json.loads((workplace.folder / "data/tasks/t.json").read_text())


def _class_folders(workplace, split, **data):
    data = {"format": "class-folders", "root": "s", "split": split, **data}
    workplace.declare(t={"kind": "classification", "data": data})


def _chips(workplace, drawing, easts, crs="EPSG:32631", north=4_600_000):
    """Chips of 160 m: number N is `s/CLASS/N.tif` at the Nth place."""
    for number, east in enumerate(easts):
        path = workplace.raw / "s" / ("farm", "town")[number % 2] / f"{number}.tif"
        drawing.tiff(path, workplace.noise(), east, north=north, crs=crs)


SPLIT = {"val": ["farm/2.tif", "town/3.tif"], "test": ["farm/4.tif", "town/5.tif"]}


def test_ground_that_is_in_training_and_in_test_is_named_and_listed(workplace, drawing):
    """Chips of GeoTIFFs in class folders: 1 (train) lies half over 4 (test), 0 touches 2 (val)."""
    _chips(workplace, drawing, [500_000, 509_080, 500_160, 503_000, 509_000, 506_000])
    _class_folders(workplace, SPLIT)
    code, printed = workplace.gfm("index")
    assert code == 0
    assert (
        "warning: t: 1 samples lie on the ground of samples of a part that counts more, the first: town/1.tif (train)"
        in printed
    )
    shared = _meta(workplace)["same_ground"]
    assert shared == {
        "train": 1,
        "val": 0,
        "pairs": [{"sample": "town/1.tif", "held_out": "farm/4.tif", "split": "test"}],
    }


def test_what_shares_ground_is_dropped_where_that_is_declared_and_counted(workplace, drawing):
    _chips(workplace, drawing, [500_000, 509_080, 509_040, 503_000, 509_000, 506_000])
    _class_folders(workplace, SPLIT | {"overlap": "drop"})
    code, printed = workplace.gfm("index")
    assert code == 0 and "t: 2 samples on the ground of a part that counts more dropped" in printed
    meta = _meta(workplace)
    assert meta["overlaps"] == {"train": 1, "val": 1} and meta["same_ground"]["pairs"] == []
    assert meta["counts"] == {"train": 1, "val": 1, "test": 2}
    assert {row.sample.id for row in read_index("t").rows} == {
        f"{k}.tif" for k in ("farm/0", "town/3", "farm/4", "town/5")
    }


def test_places_that_are_declared_unknown_share_nothing(workplace, drawing):
    _chips(workplace, drawing, [500_000] * 6)
    _class_folders(workplace, SPLIT, georeference="none")
    assert workplace.gfm("index")[0] == 0
    assert _meta(workplace)["same_ground"]["pairs"] == []
    assert all(row.sample.bounds is None for row in read_index("t").rows)


def test_neighbours_of_a_grid_that_is_turned_against_the_meridian_only_touch(workplace, drawing):
    """On the coast of Oregon the grid of EPSG:5070 is turned by 17 degrees, so boxes of neighbours overlap."""
    easts = [-2_200_000 + 160 * number for number in range(6)]
    _chips(workplace, drawing, easts, crs="EPSG:5070", north=2_700_000)
    _class_folders(workplace, SPLIT)
    assert workplace.gfm("index")[0] == 0
    assert _meta(workplace)["same_ground"]["pairs"] == []
    one, other = (
        next(row.sample.bounds for row in read_index("t").rows if row.sample.id == name)
        for name in ("farm/2.tif", "town/3.tif")
    )
    assert one.east - other.west > 0.2 * (one.east - one.west)


def test_georeferenced_image_masks_lie_where_their_files_say(workplace, drawing):
    for number, area in enumerate(("north", "south", "east")):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:10] = 255
        drawing.tiff(workplace.raw / "b" / area / "images/0.tif", workplace.noise(), 500_000 + 100 * number)
        drawing.picture(workplace.raw / "b" / area / "masks/0.png", mask)
    workplace.declare(t=drawing.segmentation())
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    assert {(pair["sample"], pair["held_out"]) for pair in _meta(workplace)["same_ground"]["pairs"]} == {
        ("north/images/0.tif", "south/images/0.tif"),
        ("south/images/0.tif", "east/images/0.tif"),
    }
    bounds = next(row.sample.bounds for row in read_index("t").rows if row.sample.place == "north")
    assert bounds == pytest.approx(
        transform_bounds("EPSG:32631", "EPSG:4326", 5e5, 4_599_840, 500_160, 4.6e6), abs=1e-6
    )


def test_a_turned_and_recompressed_copy_in_another_part_is_listed_and_only_that(buildings, drawing):
    workplace = buildings()
    for place in ("north", "east"):
        picture = cv2.resize(np.random.default_rng(5).integers(0, 255, (7, 7, 3), np.uint8), (24, 20))
        if place == "north":
            picture = np.ascontiguousarray(np.clip(picture[::-1].astype(int) + 2, 0, 255).astype(np.uint8))
        drawing.picture(workplace.raw / "b" / place / "images/copy.png", picture)
        drawing.picture(workplace.raw / "b" / place / "masks/copy.png", np.ones((20, 24), np.uint8))
    code, printed = workplace.gfm("index")
    assert code == 0 and "warning: buildings: 1 samples look like samples of a part that counts more" in printed
    meta = json.loads((workplace.folder / "data/tasks/buildings.json").read_text())
    assert meta["near_duplicates"] == {
        "train": 1,
        "val": 0,
        "pairs": [{"sample": "north/images/copy.png", "held_out": "east/images/copy.png", "split": "test"}],
    }


def test_ground_across_the_antimeridian_is_the_same_ground():
    def sample(west, east):
        return Sample(f"{west}", "p", (("f",),), None, (), (0, 0, 8, 8), Bounds(west, 0.0, east, 1.0))

    samples = [sample(179.5, -179.5), sample(-179.9, -179.6), sample(179.0, 179.5)]

    def corners(one):
        west, south, east, north = one.bounds
        return (west, south), (east, south), (east, north), (west, north)

    assert same_ground(["train", "test", "test"], samples, corners) == [(0, 1)]


def test_every_date_is_compared_with_every_date():
    pictures = [np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8) for seed in range(3)]
    first, second, third = ([dihedral_dhashes(picture)] for picture in pictures)
    assert near_duplicates(["train", "val"], [first + second, third + first], 3) == [(0, 1)]
    assert near_duplicates(["train", "train"], [first, first], 3) == []


def test_an_image_of_another_size_is_quarantined_with_both_sizes_and_does_not_shrink_the_others(buildings, drawing):
    workplace = buildings()
    drawing.picture(workplace.raw / "b/north/images/large.png", workplace.noise(200, 240))
    drawing.picture(workplace.raw / "b/north/masks/large.png", np.ones((200, 240), np.uint8))
    assert workplace.gfm("index")[0] == 0
    [(file, reason)] = workplace.quarantined().items()
    assert file == "b/north/images/large.png"
    assert reason.startswith("is 240x200 px, most images of the task are 24x20; set tasks.buildings.data.chip_px")
    assert {row.sample.window for row in read_index("buildings").rows} == {(0, 0, 24, 20)}
    assert json.loads((workplace.folder / "data/tasks/buildings.json").read_text())["quarantined"] == 1


def test_images_of_any_size_are_cut_where_chips_are_declared(buildings, drawing):
    task = drawing.segmentation()
    task["data"]["chip_px"] = 16
    workplace = buildings(**task)
    large = workplace.noise(30, 40)
    drawing.picture(workplace.raw / "b/north/images/large.png", large)
    drawing.picture(workplace.raw / "b/north/masks/large.png", np.ones((30, 40), np.uint8))
    assert workplace.gfm("index")[0] == 0
    from gfm.downstream.formats import open_format
    from gfm.params import load

    rows = [row.sample for row in read_index("buildings").rows if "large" in row.sample.id]
    assert len(rows) == 6 and {sample.place for sample in rows} == {"north"}
    data = open_format("buildings", load().tasks["buildings"], workplace.raw)
    chip = next(sample for sample in rows if sample.window == (16, 16, 16, 14))
    assert np.array_equal(data.images(chip, ["R", "G", "B"])[0], large[16:30, 16:32])


def test_images_of_all_sizes_are_an_error_that_names_the_way_out(buildings, drawing):
    workplace = buildings()
    for number in range(20):
        side = 30 + number
        drawing.picture(workplace.raw / f"b/north/images/a{number}.png", workplace.noise(side, side))
        drawing.picture(workplace.raw / f"b/north/masks/a{number}.png", np.ones((side, side), np.uint8))
    code, printed = workplace.gfm("index")
    assert code == 2
    assert (
        "38 images are of 21 sizes, none that of half of them (24x20 px: 18); set tasks.buildings.data.chip_px"
        in printed
    )
