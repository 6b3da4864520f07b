"""Published split files beside the data: used where they are, places split where they are not."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from gfm.downstream.table import read_index

SHARES = {"val_share": 0.2, "test_share": 0.3}


@pytest.fixture
def merced(workplace, drawing):
    for name in ("beach", "forest"):
        for number in range(6):
            drawing.picture(workplace.raw / f"UCM/Images/{name}/{name}{number:02}.png", workplace.noise())
    data = {"format": "class-folders", "root": "UCM/Images", "split": SHARES}
    workplace.declare(scenes={"kind": "classification", "data": data})
    return workplace


def _write(workplace, **parts):
    for part, names in parts.items():
        (workplace.raw / f"UCM/uc_merced-{part}.txt").write_text("".join(f"{name}.tif\n" for name in names))


def _names(*numbers):
    return [f"{name}{number:02}" for name in ("beach", "forest") for number in numbers]


def test_uc_merceds_files_say_the_parts_and_images_in_none_are_refused(merced):
    _write(merced, train=_names(0, 3), val=_names(1), test=_names(2, 4))
    code, printed = merced.gfm("index")
    assert code == 0, printed
    assert "split by uc_merced-train.txt, uc_merced-val.txt, uc_merced-test.txt" in printed
    parts = {row.sample.id: row.split for row in read_index("scenes").rows}
    assert [parts[f"beach/beach{n:02}.png"] for n in range(5)] == ["train", "val", "test", "train", "test"]
    assert set(merced.quarantined()) == {f"UCM/Images/{name}/{name}05.png" for name in ("beach", "forest")}


def test_without_them_the_split_is_made_by_place_and_that_is_said(merced):
    code, printed = merced.gfm("index")
    assert code == 0 and "split by place" in printed


def test_files_of_another_set_beside_this_one_say_nothing(merced):
    for part in ("train", "val", "test"):
        (merced.raw / f"uc_merced-{part}.txt").write_text("airplane00.tif\n" if part == "train" else "")
    code, printed = merced.gfm("index")
    assert code == 0 and "split by place" in printed and merced.quarantined() == {}


def test_a_missing_file_of_the_three_and_an_image_in_two_are_errors(merced):
    _write(merced, train=_names(0, 3), val=_names(1))
    code, printed = merced.gfm("index")
    assert code == 2 and "uc_merced-test.txt: no such file; restore it, or take the other two away" in printed
    _write(merced, test=_names(1))
    code, printed = merced.gfm("index")
    assert code == 2 and "beach01 stands in uc_merced-val.txt too" in printed


@pytest.fixture
def patches(workplace, drawing):
    for number in range(8):
        folder = workplace.raw / f"BEN/patches/p{number}"
        for band in ("B04", "B03", "B02"):
            drawing.band(folder / f"{band}.tif", workplace.dice.integers(0, 3000, (16, 16)), 500_000 + 9_000 * number)
        (folder / "meta.json").write_text(json.dumps({"labels": ["Pastures"] if number % 2 else ["Beaches", "Sea"]}))
    data = {"format": "bigearthnet", "root": "BEN/patches", "split": SHARES}
    workplace.declare(ben={"kind": "multilabel", "data": data})
    return workplace


def test_bigearthnets_metadata_says_the_parts(patches):
    splits = ["train", "train", "validation", "validation", "test", "test", "train", "test"]
    table = pd.DataFrame({"patch_id": [f"p{n}" for n in range(8)], "split": splits, "country": "Malta"})
    table.to_parquet(patches.raw / "BEN/metadata.parquet")
    code, printed = patches.gfm("index")
    assert code == 0 and "split by metadata.parquet" in printed, printed
    assert [row.split for row in read_index("ben").rows] == [s.replace("validation", "val") for s in splits]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"patch_id": ["p0"], "split": ["dev"]}, "split = 'dev' is none of train, val, validation, test"),
        ({"patch": ["p0"], "split": ["test"]}, "is no table of patch_id and split"),
    ],
)
def test_other_tables_of_that_name_are_errors(patches, table, told):
    pd.DataFrame(table).to_parquet(patches.raw / "BEN/metadata.parquet")
    code, printed = patches.gfm("index")
    assert code == 2 and told in printed
