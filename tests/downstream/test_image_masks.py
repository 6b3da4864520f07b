"""`format: image-masks`: what stored values mean, which pixels are not scored, and places by ground."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats import open_format
from gfm.downstream.formats.mask_file import class_ids
from gfm.downstream.table import read_index
from gfm.imagery.raster import ImageError
from gfm.params import ImageMasks, ParameterError, load

CITY = {"classes": {"ground": 0, "roof": [1, 2], "road": 5}, "foreground": "exact", "ignore": [250]}


@pytest.fixture
def city(workplace, drawing):
    """Three areas of chips of ground, roofs (values 1 and 2), a road (5) and pixels that nobody labelled (250)."""

    def make(kind="segmentation", **data):
        for area in ("north", "south", "east"):
            for number in range(4):
                mask = np.zeros((20, 24), np.uint8)
                mask[2:6, 2:10], mask[2:6, 12:20] = 1, 2
                mask[10:13], mask[16:] = 5, 250
                drawing.picture(workplace.raw / "b" / area / "images" / f"{number}.png", workplace.noise(20, 24))
                drawing.picture(workplace.raw / "b" / area / "masks" / f"{number}.png", mask)
        task = drawing.segmentation(kind=kind, positive_class=None)
        task["data"] |= CITY | data
        workplace.declare(city=task)
        return workplace

    return make


def _mask(workplace, area="north"):
    data = open_format("city", load().tasks["city"], workplace.raw)
    return data.mask(next(row.sample for row in read_index("city").rows if row.sample.place == area))


def test_stored_values_become_the_classes_that_they_are_declared_to_be(city):
    workplace = city()
    assert workplace.gfm("index")[0] == 0
    assert read_index("city").classes == ["ground", "roof", "road"]
    mask = _mask(workplace)
    assert (mask[2:6, 2:10] == 1).all() and (mask[2:6, 12:20] == 1).all() and (mask[10:13] == 2).all()
    assert (mask[16:] == IGNORED).all() and (mask[:2] == 0).all()


def test_classes_may_be_declared_by_their_values_too(city):
    workplace = city(classes={0: "ground", 1: "roof", 2: "roof", 5: "road"})
    assert workplace.gfm("index")[0] == 0
    assert read_index("city").classes == ["ground", "roof", "road"] and (_mask(workplace)[10:13] == 2).all()


def test_a_model_learns_and_is_scored_where_half_of_a_mask_is_ignored(city, drawing):
    workplace = city()
    workplace.encoders()
    for number in range(4):
        mask = np.full((20, 24), 250, np.uint8)
        mask[3, 3], mask[3, 4], mask[3, 5] = 0, 1, 5
        drawing.picture(workplace.raw / f"b/east/masks/{number}.png", mask)
    assert workplace.gfm("index")[0] == 0 and workplace.gfm("finetune", "city", "teacher")[0] == 0
    scores = pd.read_csv(workplace.folder / "models/tasks/city/teacher/scores.csv")
    accuracy = scores[(scores["split"] == "test") & (scores["metric"] == "pixel_accuracy")]["score"].item()
    assert np.isclose(accuracy * 12, round(accuracy * 12))  # of the three pixels of each mask that say something


def test_a_value_that_is_neither_named_nor_ignored_is_refused_with_file_value_and_fix(city, drawing):
    workplace = city()
    mask = np.zeros((20, 24), np.uint8)
    mask[3, 3] = 7
    drawing.picture(workplace.raw / "b/north/masks/1.png", mask)
    code, printed = workplace.gfm("index")
    assert code == 0 and "1 files quarantined" in printed
    assert workplace.quarantined() == {
        "b/north/masks/1.png": "holds the value 7, which is no class; name it in tasks.city.data.classes, or in its "
        "ignore"
    }


def test_a_chip_that_is_ignored_throughout_is_left_out_and_a_mask_that_is_so_is_refused(city, drawing):
    workplace = city(chip_px=10)
    drawing.picture(workplace.raw / "b/north/masks/1.png", np.full((20, 24), 250, np.uint8))
    mask = np.zeros((20, 24), np.uint8)
    mask[:10, :10] = 250
    drawing.picture(workplace.raw / "b/north/masks/2.png", mask)
    assert workplace.gfm("index")[0] == 0
    assert workplace.quarantined() == {"b/north/masks/1.png": "holds no pixel of a class, all are ignored"}
    ids = {row.sample.id for row in read_index("city").rows}
    assert "north/images/2.png#0,0" not in ids and "north/images/2.png#10,0" in ids


def test_presence_counts_no_ignored_pixel(city, drawing):
    workplace = city(kind="classification", presence_share=0.5)
    for area in ("north", "south", "east"):
        mask = np.full((20, 24), 250, np.uint8)
        mask[:4], mask[:3] = 0, 1
        drawing.picture(workplace.raw / "b" / area / "masks/0.png", mask)
    assert workplace.gfm("index")[0] == 0
    labels = {row.sample.id: row.sample.labels for row in read_index("city").rows}
    assert labels["north/images/0.png"] == ("present",) and labels["north/images/1.png"] == ("absent",)


def test_pixels_ignored_beside_a_foreground_of_any_value(city):
    workplace = city(classes=["ground", "built"], foreground="above-zero")
    assert workplace.gfm("index")[0] == 0
    mask = _mask(workplace)
    assert set(np.unique(mask)) == {0, 1, IGNORED} and (mask[16:] == IGNORED).all()


@pytest.mark.parametrize("classes", [["ground", "roof"], {"ground": 0, "roof": [1, 2]}, {"roof": 1, "ground": 0}])
def test_classes_are_recorded_so_that_they_mean_the_same_when_read_again(classes):
    plain = {"format": "image-masks", "root": "r", "split": {"val_share": 0.1, "test_share": 0.1}}
    declared = ImageMasks.model_validate(plain | {"classes": classes})
    recorded = declared.model_dump(mode="json")
    assert ImageMasks.model_validate(recorded) == declared
    assert (recorded["classes"] == classes) == isinstance(classes, list)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"ignore": [5]}, "the value 5 is of road and of ignore"),
        ({"classes": {"ground": 0, "roof": [1, 0]}}, "the value 0 is of roof and of ground"),
        ({"classes": {"ground": 0}}, "tasks.city.data.classes = {'ground': [0]}: needs at least 2 entries, not 1"),
        ({"classes": {"ground": 0, "roof": []}}, "tasks.city.data.classes.roof"),
        ({"classes": {"ground": 0, "roof": "1"}}, "tasks.city.data.classes.roof = '1': must be a list"),
        ({"classes": ["ground", "ground"]}, "names ground twice"),
        ({"classes": [f"c{number}" for number in range(256)]}, "classes names 256, more than 255"),
        ({"classes": {"ground": 0, "roof": 5}, "foreground": "above-zero"}, "above-zero tells two classes apart"),
        ({"ignore": 250}, "tasks.city.data.ignore = 250: must be a list"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(city, data, told):
    city(**data)
    with pytest.raises(ParameterError, match=r"^params\.yaml: tasks\.city\.data") as error:
        load()
    assert told in str(error.value)


VALUES = st.integers(-300, 70_000)


@given(st.lists(VALUES, min_size=4, max_size=12, unique=True), st.data())
def test_every_value_gets_its_class_or_is_named(values, data):
    """Whatever the values are, and whatever type they are stored in."""
    stranger, first, *rest = values
    owner = [data.draw(st.sampled_from(["a", "b", "ignore"])) for _ in rest]
    classes = {name: [value for value, of in zip(rest, owner, strict=True) if of == name] for name in "ab"}
    classes = {"a": [first, *classes["a"]], **({"b": classes["b"]} if classes["b"] else {"b": [80_000]})}
    ignore = [value for value, of in zip(rest, owner, strict=True) if of == "ignore"]
    declared = ImageMasks.model_validate(
        {"format": "image-masks", "root": "r", "split": {"val_share": 0.1, "test_share": 0.1}}
        | {"classes": classes, "ignore": ignore}
    )
    stored = np.array([[first, *rest]], np.int32)
    told = ["ab".index(of) if of != "ignore" else IGNORED for of in owner]
    assert class_ids(stored, Path("m.png"), declared, "k").tolist() == [[0, *told]]
    with pytest.raises(ImageError, match=rf"m\.png: holds the value {stranger}, which is no class; name it in k\."):
        class_ids(np.array([[first, stranger]]), Path("m.png"), declared, "k")


def _tiles(workplace, drawing, area="", side=16):
    """Chips of 160 m side by side in one row, as GeoTIFFs."""
    folder = workplace.raw / "b" / area
    for number in range(side):
        mask = np.zeros((16, 16), np.uint8)
        mask[:8, number // 2 : 8] = 255
        drawing.tiff(folder / "images" / f"{number}.tif", workplace.noise(), 500_000 + 160 * number)
        drawing.picture(folder / "masks" / f"{number}.png", mask)


def test_chips_in_one_flat_folder_are_split_by_blocks_of_ground(workplace, drawing):
    _tiles(workplace, drawing)
    task = drawing.segmentation()
    task["data"] |= {"block_km": 0.5, "split": {"val_share": 0.3, "test_share": 0.3}}
    workplace.declare(buildings=task)
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    rows = {int(Path(row.sample.id).stem): row for row in read_index("buildings").rows}
    places = [rows[number].sample.place for number in range(16)]
    assert all(place.startswith("ground-0.5km-") for place in places) and 5 <= len(set(places)) <= 7
    assert sum(one != other for one, other in pairwise(places)) == len(set(places)) - 1
    assert len({(row.sample.place, row.split) for row in rows.values()}) == len(set(places))


def test_blocks_too_large_for_the_data_are_an_error_that_says_so(workplace, drawing):
    _tiles(workplace, drawing, side=4)
    task = drawing.segmentation()
    task["data"] |= {"block_km": 50, "split": {"val_share": 0.3, "test_share": 0.3}}
    workplace.declare(buildings=task)
    code, printed = workplace.gfm("index")
    assert code == 2 and "1 places exist: ground-50km-" in printed
    assert "or make blocks of ground smaller (data.block_km)" in printed


@pytest.mark.parametrize("place", ["folder", "block"])
def test_an_area_is_one_place_unless_its_blocks_are_asked_for(workplace, drawing, place):
    for area in ("north", "south", "east"):
        _tiles(workplace, drawing, area, side=6)
    task = drawing.segmentation()
    task["data"] |= {"block_km": 0.5, "place": place}
    workplace.declare(buildings=task)
    data = open_format("buildings", load().tasks["buildings"], workplace.raw)
    places = {scene.place for scene in data.scenes()[0]}
    assert (places == {"north", "south", "east"}) == (place == "folder")
    assert all(place == "folder" or name.split("/")[1].startswith("ground-0.5km-") for name in places)


def test_without_georeference_each_file_of_a_flat_folder_stays_its_own_place(workplace, drawing):
    for number in range(12):
        mask = np.zeros((16, 16), np.uint8)
        mask[:8, number // 2 : 8] = 255
        drawing.picture(workplace.raw / "b/images" / f"{number}.png", workplace.noise())
        drawing.picture(workplace.raw / "b/masks" / f"{number}.png", mask)
    task = drawing.segmentation()
    task["data"]["split"] = {"val": ["1", "3"], "test": ["4", "5"]}
    workplace.declare(buildings=task)
    assert workplace.gfm("index")[0] == 0
    assert {row.sample.place for row in read_index("buildings").rows} == {str(number) for number in range(12)}
