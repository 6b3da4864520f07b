"""The real imagery beside the project: what its index must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

IMAGERY = Path(__file__).parents[2] / ".." / "shared" / "imagery"

pytestmark = [
    pytest.mark.field,
    pytest.mark.skipif(not IMAGERY.is_dir(), reason="needs ../shared/imagery"),
]


@pytest.fixture
def field(workplace):
    workplace.raw.rmdir()
    workplace.raw.symlink_to(IMAGERY.resolve())
    return workplace


def _meta(workplace, task):
    return json.loads((workplace.folder / f"data/tasks/{task}.json").read_text())


@pytest.mark.slow
def test_buildings_of_two_areas_test_and_no_block_stands_on_both_sides(field):
    data = {
        "format": "image-masks",
        "root": "hot-buildings",
        "georeference": "slippy",
        "classes": ["background", "building"],
        "foreground": "above-zero",
        "split": {"test": ["nairobi_ke", "nepal"], "val_share": 0.15},
    }
    field.declare(buildings={"kind": "segmentation", "positive_class": "building", "data": data})
    code, printed = field.gfm("index")
    assert code == 0, printed
    meta = _meta(field, "buildings")
    assert sum(meta["counts"].values()) + meta["quarantined"] == 1248
    assert meta["quarantined"] == 39  # chips that carry an alpha band
    places = meta["places"]
    assert not set(places["train"]) & set(places["val"])
    assert {place.split("/")[0] for place in places["test"]} == {"nairobi_ke", "nepal"}
    assert {place.split("/")[0] for part in ("train", "val") for place in places[part]} == {"zanzibar_tz"}


def test_three_cities_of_oscd_need_resampling_and_the_error_says_how(field):
    data = {"format": "oscd", "root": "oscd", "split": {"test": ["beirut", "hongkong", "pisa"], "val": ["rennes"]}}
    task = {"kind": "change", "positive_class": "change", "data": data}
    field.declare(oscd=task)
    code, printed = field.gfm("index")
    assert code == 2 and "oscd/images/abudhabi: imgs_2 is 782x795 px, imgs_1 is 785x799" in printed
    field.declare(oscd=task | {"data": data | {"align": "resample"}})
    assert field.gfm("index")[0] == 0
    meta = _meta(field, "oscd")
    assert sum(len(places) for places in meta["places"].values()) == 12
    assert {"abudhabi", "saclay_e"} <= set(meta["places"]["train"]) and "hongkong" in meta["places"]["test"]


def test_patches_without_band_files_are_quarantined_and_the_others_read(field):
    split = {"test_share": 0.3, "val_share": 0.4}
    field.declare(
        ben={"kind": "multilabel", "data": {"format": "bigearthnet", "root": "bigearthnet-v2", "split": split}}
    )
    assert field.gfm("index")[0] == 0
    meta = _meta(field, "ben")
    assert sum(meta["counts"].values()) + meta["quarantined"] == 21 and meta["counts"]["train"] >= 1
