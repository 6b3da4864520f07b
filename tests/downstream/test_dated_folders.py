"""Samples of several dates: order and number of dates, what is refused, and whole tasks at toy size."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from gfm.downstream.adapted import load_adapted
from gfm.downstream.table import read_index
from gfm.downstream.tasks import Batch

DATES = ("20200105", "20200210", "20200401")
SPLIT = {"val": ["south"], "test": ["east"]}


def _task(kind="classification", **changes):
    data = {
        "format": "dated-folders",
        "root": "series",
        "date": "S2_%Y%m%dT",
        "imagery": {"nodata": 0},
        "place": "folder",
        "split": SPLIT,
        **({"labels": {}} if kind != "segmentation" else {"target_file": "mask.png", "foreground": "above-zero"}),
    }
    return {"kind": kind, "dates": {"number": 3}, "data": data | changes.pop("data", {}), **changes}


class Series:
    """Draws samples under raw/series; a bright sample is `wet` and carries the number of its brightness."""

    def __init__(self, workplace, drawing):
        self.workplace, self.drawing, self.rows = workplace, drawing, []
        self.root = workplace.raw / "series"

    def date(self, name, date, level, px=16, bands=3, apart=0.0):
        pixels = self.workplace.dice.integers(level, level + 20, (px, px, bands), dtype=np.uint8)
        east = 500_000 + 1_000 * sum(ord(letter) for letter in name) + apart
        self.drawing.tiff(self.root / name / f"S2_{date}T_B.tif", pixels, east)

    def sample(self, name, level, dates=DATES):
        for date in dates:
            self.date(name, date, level)
        mask = np.zeros((16, 16), np.uint8)
        mask[: 4 + level // 20] = 255
        self.drawing.picture(self.root / name / "mask.png", mask)
        self.rows.append((name, "wet" if level > 100 else "dry", level))


@pytest.fixture
def series(workplace, drawing):
    made = Series(workplace, drawing)
    for area in ("north", "south", "east"):
        for number, level in enumerate((20, 200, 40, 180)):
            made.sample(f"{area}/{number}", level, DATES[: 2 + number % 2])
    table = pd.DataFrame(made.rows, columns=["path", "label", "level"])
    table.to_csv(made.root / "labels.csv", index=False)
    workplace.declare(fields=_task())
    workplace.encoders()
    return made


def _index(series):
    code, printed = series.workplace.gfm("index")
    assert code == 0, printed
    return {row.sample.id: row.sample for row in read_index("fields").rows}


def _fails(series):
    code, printed = series.workplace.gfm("index")
    assert code == 2, printed
    return printed


def test_dates_stand_in_the_order_of_their_names_pattern_and_evenly_spread_where_there_are_more(series):
    folder = series.root / "north/0"
    for old, new in zip(DATES[:2], ("19991231", "20200105"), strict=True):
        (folder / f"S2_{old}T_B.tif").rename(folder / f"A_S2_{new}T_99990101.tif")
    for date in ("20200601", "20200501", "20200701"):
        series.date("north/0", date, 30)
    files = [files[0].rsplit("/")[-1] for files in _index(series)["north/0"].inputs]
    assert files == ["A_S2_19991231T_99990101.tif", "S2_20200501T_B.tif", "S2_20200701T_B.tif"]


def test_a_date_of_nothing_but_nodata_is_a_missing_date(series):
    series.drawing.tiff(
        series.root / "north/1/S2_20200210T_B.tif",
        np.zeros((16, 16, 3), np.uint8),
        500_000 + 1_000 * sum(map(ord, "north/1")),
    )
    found = _index(series)
    assert len(found["north/1"].inputs) == 2 and len(found["south/1"].inputs) == 3


def test_samples_that_are_no_series_are_refused_whole_with_the_reason(series):
    series.date("north/0", "20200801", 20, bands=2)
    series.date("north/1", "20200801", 20, px=20)
    series.date("north/2", "20200801", 20, apart=100)
    (series.root / "north/3/S2_20200105T_B.tif").rename(series.root / "north/3/B_S2_20200210T_C.tif")
    series.sample("north/4", 20)
    (series.root / "north/5").mkdir()
    for name, file in (("6", "overview.tif"), ("7", "S2_20201332T_B.tif"), ("8", "S2_20200105T_S2_20200106T.tif")):
        series.sample(f"north/{name}", 20)
        (series.root / f"north/{name}" / f"S2_{DATES[0]}T_B.tif").rename(series.root / f"north/{name}" / file)
    series.sample("north/9", 20)
    series.sample("north/good", 20)
    rows = pd.DataFrame(series.rows, columns=["path", "label", "level"])
    rows = rows[rows["path"] != "north/4"]
    rows.loc[rows["path"] == "north/9", "path"] = "north/5"
    rows.to_csv(series.root / "labels.csv", index=False)
    _index(series)
    refused = {file.removeprefix("series/north/"): why for file, why in series.workplace.quarantined().items()}
    assert refused == {
        "0/S2_20200801T_B.tif": "has 2 bands, 3 declared (R, G, B)",
        "1/S2_20200801T_B.tif": "is 20x20 px, the first date S2_20200105T_B.tif is 16x16",
        "2/S2_20200801T_B.tif": "covers other ground than the first date S2_20200105T_B.tif",
        "3/S2_20200210T_B.tif": "is of the same date as B_S2_20200210T_C.tif",
        "4": "no row in labels.csv",
        "5": "holds no *.tif",
        "6/overview.tif": "no date like S2_%Y%m%dT in its name",
        "7/S2_20201332T_B.tif": "S2_20201332T in its name is no date like S2_%Y%m%dT",
        "8/S2_20200105T_S2_20200106T.tif": ("several dates like S2_%Y%m%dT in its name (S2_20200105T, S2_20200106T)"),
        "9": "no row in labels.csv",
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dates": None}, "dates is missing: dated-folders hold several a sample; give dates: {number: N}"),
        ({"data": {"date": "%m-%d"}}, "must hold %Y"),
        ({"data": {"date": "%Y-%q"}}, "must hold %Y and may hold others of"),
        ({"data": {"labels": None}}, "give either labels (a table) or target_file"),
        ({"data": {"labels": None, "target_file": "m.png"}}, "a classification task takes data.labels"),
        ({"finetune": {"full": {"mixup": 0.8}}}, "mixup and cutmix blend images of one date"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(series, changes, told):
    task = _task(**changes) | ({"dates": None} if "dates" in changes else {})
    series.workplace.declare(fields={key: value for key, value in task.items() if value is not None})
    assert told in _fails(series)


@pytest.mark.parametrize("mode", ["full", "frozen", "linear", "knn"])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_a_missing_date_changes_nothing_in_any_mode(series, mode, reduce):
    """What is predicted does not depend on what stands in the place of a date that a sample does not have."""
    finetune = {**series.drawing.short, "epochs": 1, "mode": mode} | (
        {"knn": {"neighbours": [1]}} if mode == "knn" else {}
    )
    series.workplace.declare(fields=_task(dates={"number": 3, "reduce": reduce}, finetune=finetune))
    _index(series)
    code, printed = series.workplace.gfm("finetune", "fields", "teacher")
    assert code == 0, printed
    folder = series.workplace.folder / "models/tasks/fields/teacher"
    assert (folder / "predictions.png").stat().st_size > 5_000
    model = load_adapted(folder, 0)
    image = torch.randint(0, 255, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, True, False], [True, True, True]])
    other = image.clone()
    other[0, 2] = 255 - other[0, 2]
    with torch.no_grad():
        one, two = (model.predict(Batch(pixels, torch.zeros(2), present)) for pixels in (image, other))
        all_dates = model.predict(Batch(image, torch.zeros(2), None))
        turned = model.predict(Batch(image[:, [1, 0, 2]], torch.zeros(2), present))
    assert torch.equal(one, two)
    assert torch.allclose(one, turned, atol=1e-5)  # time is reduced, not read
    assert not torch.allclose(one[0], all_dates[0], atol=1e-6) or mode == "knn"
    assert torch.allclose(one[1], all_dates[1], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "metric", "changes"),
    [
        ("multilabel", "micro_map", {}),
        ("segmentation", "miou", {}),
        ("regression", "r2", {"data": {"labels": {"label": "level", "unit": "t/ha"}}}),
        ("regression", "r2", {"data": {"labels": None, "target_file": "mask.png", "target": {"dtype": "uint8"}}}),
    ],
)
def test_other_kinds_take_several_dates_too(series, kind, metric, changes):
    series.workplace.declare(fields=_task(kind, **changes))
    _index(series)
    code, printed = series.workplace.gfm("finetune", "fields", "teacher")
    assert code == 0, printed
    folder = series.workplace.folder / "models/tasks/fields/teacher"
    assert json.loads((folder / "run.json").read_text())["primary_metric"] == metric
    assert (folder / "predictions.png").stat().st_size > 5_000


def test_fewer_dates_than_the_index_was_made_for_ask_for_another_index(series):
    _index(series)
    series.workplace.declare(fields=_task(dates={"number": 2}))
    code, printed = series.workplace.gfm("finetune", "fields", "teacher")
    assert code == 2 and "fields.parquet: made for 3 dates a sample, now 2; run `gfm index` again" in printed


def test_a_batch_whose_dates_are_not_those_declared_is_refused(series):
    _index(series)
    code, printed = series.workplace.gfm("finetune", "fields", "teacher")
    assert code == 0, printed
    model = load_adapted(series.workplace.folder / "models/tasks/fields/teacher", 0)
    image = torch.zeros(2, 3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="declared is uint8"):
        model.predict(Batch(image.transpose(1, 2)[:, :2], torch.zeros(2)))
    with pytest.raises(ValueError, match="a sample of a batch has no date"):
        model.predict(Batch(image, torch.zeros(2), torch.zeros(2, 3, dtype=torch.bool)))
