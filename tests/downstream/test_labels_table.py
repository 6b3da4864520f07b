"""Images with a table of labels: what the table may say, what is refused, and the split that it names."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gfm.downstream.adapted import load_adapted
from gfm.downstream.table import read_index


def _task(kind="classification", **changes):
    data = {"format": "labels-table", "root": "t", "split": {"column": "split"}}
    return {"kind": kind, "data": data | changes.pop("data", {}), **changes}


@pytest.fixture
def table(workplace, drawing):
    """Twelve georeferenced images; `level` is how bright one is."""
    rows = []
    for number in range(12):
        level = 20 + 18 * number
        pixels = workplace.dice.integers(level, level + 20, (16, 16, 3), dtype=np.uint8)
        drawing.tiff(workplace.raw / f"t/images/{number}.tif", pixels, 500_000 + 5_000 * number)
        part = ("train", "train", "validation", "test")[number % 4]
        rows.append((f"images/{number}.tif", "dark" if number < 6 else "bright", level, part))
    workplace.encoders()
    workplace.declare(lamps=_task())
    found = pd.DataFrame(rows, columns=["path", "label", "level", "split"]).astype(object)
    found.to_csv(workplace.raw / "t/labels.csv", index=False)
    return found


def _index(workplace):
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    return {row.sample.id: row for row in read_index("lamps").rows}, printed


def test_the_column_of_the_table_says_the_parts_and_that_is_reported(workplace, table):
    rows, printed = _index(workplace)
    assert [rows[f"images/{number}.tif"].split for number in range(4)] == ["train", "train", "val", "test"]
    assert "split by column split" in printed
    assert json.loads((workplace.folder / "data/tasks/lamps.json").read_text())["split_by"] == "column split"
    assert workplace.gfm("finetune", "lamps", "teacher")[0] == 0


def test_without_a_column_blocks_of_ground_are_split(workplace, table):
    workplace.declare(lamps=_task(data={"split": {"val_share": 0.3, "test_share": 0.3}}))
    rows, printed = _index(workplace)
    assert "split by place" in printed and all(row.sample.place.startswith("ground-1km-") for row in rows.values())
    assert "split_by" not in json.loads((workplace.folder / "data/tasks/lamps.json").read_text())


def test_a_number_an_image_is_learned_and_said_in_its_unit(workplace, table, drawing):
    task = _task("regression", data={"labels": {"label": "level", "unit": "lm"}})
    settings = {**drawing.short, "mode": "linear", "epochs": 30, "max_steps_per_epoch": 4, "lr": 0.02}
    workplace.declare(lamps=task | {"finetune": settings})
    _index(workplace)
    numbers = json.loads((workplace.folder / "data/tasks/lamps.json").read_text())["numbers"]["train"]
    assert numbers["pixels"] == 6 and numbers["min"] == 20
    code, printed = workplace.gfm("finetune", "lamps", "teacher")
    assert code == 0, printed
    folder = workplace.folder / "models/tasks/lamps/teacher"
    scores = pd.read_csv(folder / "scores.csv").set_index(["split", "metric"])["score"]
    assert list(scores["test"].index) == ["r2", "rmse", "mae"] and scores["test", "r2"] > 0.3
    assert json.loads((folder / "run.json").read_text())["reference"]["name"] == "train-mean"
    assert load_adapted(folder, 0).spec.unit == "lm"


def test_several_labels_stand_between_separators(workplace, table):
    table["label"] = ["dark; low", "low"] * 6
    table.to_csv(workplace.raw / "t/labels.csv", index=False)
    workplace.declare(lamps=_task("multilabel", data={"labels": {"separator": ";"}}))
    rows, _ = _index(workplace)
    assert rows["images/0.tif"].sample.labels == ("dark", "low") and rows["images/1.tif"].sample.labels == ("low",)


def test_rows_that_cannot_be_used_are_quarantined_with_the_reason(workplace, table):
    table.loc[0, "level"], table.loc[1, "level"], table.loc[4, "level"] = "nan", "", "many"
    more = [("gone.tif", "dark", 1, "train"), ("../x.tif", "dark", 1, "train"), ("images/5.tif", "dark", 1, "train")]
    table = pd.concat([table, pd.DataFrame(more, columns=table.columns)])
    table.to_csv(workplace.raw / "t/labels.csv", index=False)
    workplace.declare(lamps=_task("regression", data={"labels": {"label": "level"}}))
    _index(workplace)
    assert workplace.quarantined() == {
        "t/images/0.tif": "its label nan is no finite number",
        "t/images/1.tif": "its label is empty",
        "t/images/4.tif": "its label many is no finite number",
        "t/images/5.tif": "stands in lines 7 and 16 of labels.csv",
        "t/gone.tif": "no such file",
        "t/../x.tif": "line 15 of labels.csv: is no path below root",
    }


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("split", ["trian"] * 12, "labels.csv: line 2: split = 'trian' is none of train, val, validation, test"),
        ("split", ["train"] * 11 + ["val"], "the split by column split leaves no sample to test"),
        ("label", ["dark"] * 12, "are of one class, dark"),
    ],
)
def test_tables_that_make_no_task_stop_with_the_reason(workplace, table, column, value, told):
    table[column] = value
    table.to_csv(workplace.raw / "t/labels.csv", index=False)
    code, printed = workplace.gfm("index")
    assert code == 2 and told in printed


def test_a_test_part_of_one_image_has_no_r2_and_that_is_said(workplace, table):
    table["split"] = ["train"] * 8 + ["val"] * 3 + ["test"]
    table.to_csv(workplace.raw / "t/labels.csv", index=False)
    workplace.declare(lamps=_task("regression", data={"labels": {"label": "level"}}))
    code, printed = workplace.gfm("index")
    assert code == 2 and "every number of test is 218, so that R2 is not defined" in printed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"labels": {"label": "kind"}}}, "labels.csv: has no column kind; it has path, label, level, split"),
        ({"data": {"labels": {"file": "l.csv"}}}, "l.csv: no such file; it is data.labels.file below data.root"),
        ({"data": {"labels": {"file": "../l.csv"}}}, "data.labels.file: must name a file below the task's root"),
        ({"data": {"labels": {"file": "tables/"}}}, "data.labels.file: must name a file below the task's root"),
        ({"data": {"split": {"column": "split", "test": ["a"]}}}, "column says the part of every row"),
        ({"dates": {"number": 2}}, "dates is for dated-folders"),
    ],
)
def test_declarations_that_do_not_fit_the_table_are_refused(workplace, table, changes, told):
    workplace.declare(lamps=_task(**changes))
    code, printed = workplace.gfm("index")
    assert code == 2 and told in printed
