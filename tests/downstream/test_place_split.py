"""Places go to one part as a whole, and stay there."""

from __future__ import annotations

import pytest

from gfm.downstream.split import doubles, split_places
from gfm.errors import DataError
from gfm.params import PlaceSplit

AREAS = ["nepal/b1_1", "nepal/b1_2", "nepal_east/b7_7", "kenya/b2_2", "kenya/b2_3"]


def test_a_named_area_takes_all_its_blocks_and_not_an_area_whose_name_begins_alike():
    parts = split_places("t", AREAS, PlaceSplit(test=["nepal"], val=["kenya/b2_3"]))
    assert parts == {
        "nepal/b1_1": "test",
        "nepal/b1_2": "test",
        "nepal_east/b7_7": "train",
        "kenya/b2_2": "train",
        "kenya/b2_3": "val",
    }


def test_a_place_keeps_its_part_when_new_places_arrive():
    rule = PlaceSplit(val_share=0.2, test_share=0.3)
    before = split_places("t", [f"p{i}" for i in range(50)], rule)
    after = split_places("t", [f"p{i}" for i in range(200)], rule)
    assert {place: after[place] for place in before} == before
    shares = {part: list(after.values()).count(part) / 200 for part in ("val", "test")}
    assert shares["val"] == pytest.approx(0.2, abs=0.08) and shares["test"] == pytest.approx(0.3, abs=0.08)


def test_an_empty_part_names_the_task_and_the_places_that_exist():
    with pytest.raises(DataError, match=r"tasks\.roofs\.data\.split leaves no place to train; 1 places exist: only"):
        split_places("roofs", ["only"], PlaceSplit(val_share=0.49, test_share=0.5))


def test_a_misspelt_test_area_is_an_error_not_an_empty_test():
    with pytest.raises(DataError, match=r"split\.test names nepall, which is no place; 5 places exist: kenya/b2_2"):
        split_places("t", AREAS, PlaceSplit(test=["nepall"], val=["kenya/b2_3"]))


def test_an_area_in_both_test_and_validation_is_refused():
    with pytest.raises(DataError, match="gives nepal/b1_1 to both test and val"):
        split_places("t", AREAS, PlaceSplit(test=["nepal"], val=["nepal/b1_1"]))


def test_the_same_picture_on_both_sides_leaves_training_then_validation_never_test():
    parts = ["train", "val", "test", "train", "train"]
    hashes = [["a", "x"], ["b"], ["b", "a"], ["c"], ["c"]]
    assert doubles(parts, hashes) == {0, 1}


def test_check_names_places_that_a_split_names_and_the_folder_does_not_hold(buildings, drawing):
    task = drawing.segmentation()
    task["data"]["split"] = {"val": ["souht", "west"], "test": ["eats"]}
    workplace = buildings(data=task["data"])
    code, printed = workplace.gfm("check")
    lines = printed.splitlines()
    assert code == 2 and lines[0].startswith("gfm: geopile.sources.a.root = a: no such folder")
    assert lines[1] == (
        "gfm: tasks.buildings.data.split.test names eats, which is no place; tasks.buildings.data.split.val names "
        "souht, west, which are no places; 3 places exist: east, north, south"
    )


def test_check_names_lora_targets_that_a_declared_network_lacks(buildings, drawing):
    pytest.importorskip("peft")
    lora = {"mode": "lora", "lora": {"targets": ["qkvv"]}}
    workplace = buildings(finetune=drawing.short | lora)
    drawing.picture(workplace.raw / "a/x/1.png", workplace.noise(64, 64))
    code, printed = workplace.gfm("check")
    assert code == 2
    assert "gfm: tasks.buildings.finetune.lora.targets: student: swin_base" in printed
    assert "has no linear layers named qkvv for LoRA: its linear layers are named " in printed
