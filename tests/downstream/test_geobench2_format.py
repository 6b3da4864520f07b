"""Tortillas of samples as tasks: parts, labels and maps as published, what is refused, and whole tasks at toy size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats import open_format
from gfm.downstream.table import read_index
from gfm.params import load

PARTS = ("train", "validation", "test")
CLASSES = {"ground": [1], "roof": [2, 3]}


class Kitchen:
    """Writes raw/set/geobench_set.tortilla of samples that tests change, and declares a task on it."""

    def __init__(self, workplace, tortillas):
        self.workplace, self.tortillas, self.samples = workplace, tortillas, {}
        self.root = workplace.raw / "set"
        self.root.mkdir()
        for number in range(12):
            self.samples[f"s{number}"] = (self.files(number), {"tortilla:data_split": PARTS[number % 3]})

    def image(self, number, side=16, bands=3, level=None):
        """Dark, or bright for odd numbers."""
        low = (60 + 120 * (number % 2)) if level is None else level
        pixels = self.workplace.dice.integers(low, low + 20, (side, side, bands), dtype=np.uint8)
        return self.tortillas.tiff(pixels, east=500_000 + 400 * number)

    def mask(self, number, kind="int16"):
        """The left half is ground, the right roof (2 or 3), the first row not labelled."""
        mask = np.full((16, 16), 1, kind)
        mask[:, 8:] = 2 + number % 2
        mask[0] = -1
        return self.tortillas.tiff(mask)

    def heights(self, number):
        return self.tortillas.tiff(np.full((16, 16), 20 + 10 * (number % 4), np.float32))

    def files(self, number):
        fields = {"labels": number % 2, "names": ["dry", "wet"][: 1 + number % 2]}
        dates = [(f"day_{date}", self.image(number), fields) for date in ("2", "10", "1")]
        return [*dates, ("mask", self.mask(number), fields), ("heights", self.heights(number), fields)]

    def write(self, name="geobench_set.tortilla", samples=None, **changes):
        chosen = self.samples if samples is None else samples
        packed = [
            (name, files if isinstance(files, bytes) else self.tortillas.pack(files), fields)
            for name, (files, fields) in chosen.items()
        ]
        (self.root / name).write_bytes(self.tortillas.pack(packed, **changes))

    def task(self, kind="segmentation", images=("day_1",), **changes):
        data = {"format": "geobench-2", "root": "set", "images": list(images)}
        data |= {
            "segmentation": {"target_file": "mask", "classes": CLASSES, "ignore": [-1]},
            "regression": {"target_file": "heights", "target": {"unit": "m"}},
            "classification": {"label_field": "labels", "classes": ["dry", "wet"]},
            "multilabel": {"label_field": "names", "classes": ["dry", "wet"]},
        }[kind]
        self.workplace.declare(cooked={"kind": kind, "data": data | changes.pop("data", {}), **changes})

    def index(self):
        code, printed = self.workplace.gfm("index")
        assert code == 0, printed
        return {row.sample.id: row for row in read_index("cooked").rows}

    def fails(self):
        code, printed = self.workplace.gfm("index")
        assert code == 2, printed
        return printed

    def refused(self):
        self.index()
        return {
            file.removeprefix("set/geobench_set.tortilla/"): why for file, why in self.workplace.quarantined().items()
        }


@pytest.fixture
def kitchen(workplace, tortillas):
    return Kitchen(workplace, tortillas)


def test_parts_are_as_published_and_reported_so(kitchen):
    kitchen.write()
    kitchen.task()
    rows = kitchen.index()
    assert {name: row.split for name, row in rows.items()} == {
        f"s{number}": ("train", "val", "test")[number % 3] for number in range(12)
    }
    assert json.loads((kitchen.workplace.folder / "data/tasks/cooked.json").read_text())["split_by"] == (
        "tortilla:data_split"
    )
    assert rows["s1"].sample.bounds is not None


def test_a_map_says_classes_by_the_values_declared_and_ignores_the_others(kitchen):
    kitchen.write()
    kitchen.task()
    sample = kitchen.index()["s1"].sample
    params = load()
    mask = open_format("cooked", params.tasks["cooked"], kitchen.workplace.raw).mask(sample)
    assert (mask[0] == IGNORED).all()
    assert (mask[1:, :8] == 0).all() and (mask[1:, 8:] == 1).all()


def test_labels_may_be_names_or_their_numbers_in_the_sample_or_in_its_files(kitchen):
    files, part = kitchen.samples["s3"]
    kitchen.samples["s3"] = (files, part | {"labels": 0})  # the sample's own table counts before its files'
    kitchen.write()
    kitchen.task("classification")
    assert {name: row.sample.labels for name, row in kitchen.index().items() if name in ("s2", "s3", "s5")} == {
        "s2": ("dry",),
        "s3": ("dry",),
        "s5": ("wet",),
    }
    kitchen.task("multilabel")
    assert kitchen.index()["s5"].sample.labels == ("dry", "wet")


def test_dates_stand_in_the_containers_order_or_in_that_of_the_names_declared(kitchen):
    def dates():
        return [file.rpartition("@")[0].rsplit("/")[-1] for (file,) in kitchen.index()["s4"].sample.inputs]

    kitchen.write()
    kitchen.task(images=["day_*"], dates={"number": 3})
    assert dates() == ["day_2", "day_10", "day_1"]
    kitchen.task(images=["day_1", "day_2"], dates={"number": 3})
    assert dates() == ["day_1", "day_2"]
    kitchen.task(images=["day_*"], dates={"number": 2})
    assert dates() == ["day_2", "day_1"]


def test_a_date_of_nodata_is_left_out_and_hides_numbers_where_all_are(kitchen):
    files, part = kitchen.samples["s3"]
    kitchen.samples["s3"] = ([("day_2", kitchen.tortillas.tiff(np.zeros((16, 16, 3), np.uint8))), *files[1:]], part)
    kitchen.write()
    kitchen.task("regression", images=["day_2", "day_1"], dates={"number": 2}, data={"imagery": {"nodata": 0}})
    rows = kitchen.index()
    assert len(rows["s3"].sample.inputs) == 1 and len(rows["s4"].sample.inputs) == 2


def test_samples_that_cannot_be_used_are_refused_by_name_with_the_reason(kitchen):
    def change(name, files=None, **fields):
        old, part = kitchen.samples[name]
        kitchen.samples[name] = (old if files is None else files, part | fields)

    tiff, pack = kitchen.tortillas.tiff, kitchen.tortillas.pack
    extra = {f"x{number}": kitchen.samples[f"s{number}"] for number in range(12)}
    kitchen.samples |= extra
    change("x0", **{"tortilla:data_split": None})
    change("x1", **{"tortilla:data_split": "additional"})
    change("x2", kitchen.image(2))
    change("x3", pack(kitchen.files(3))[:-50])
    change("x4", [file for file in kitchen.files(4) if file[0] != "day_1"])
    change("x5", [file for file in kitchen.files(5) if file[0] != "mask"])
    change("x6", [("day_1", kitchen.image(6, bands=2)), ("mask", kitchen.mask(6))])
    change("x7", [("day_1", kitchen.image(7, side=20)), ("mask", kitchen.mask(7))])
    change("x8", [("day_1", kitchen.image(8)), ("mask", tiff(np.full((16, 16), 7, np.uint8)))])
    change("x9", [("day_1", kitchen.image(9)), ("mask", tiff(np.full((16, 16), -1, np.int16)))])
    change("x10", [("day_1", kitchen.image(10)), ("mask", tiff(np.full((16, 16), 0.5, np.float32)))])
    change("x11", [("day_1", b"\x89HDF\r\n\x1a\n" + b"0" * 90), ("mask", kitchen.mask(11))])
    kitchen.write()
    kitchen.task()
    refused = kitchen.refused()
    assert refused == {
        "x0": "is of no part: its tortilla:data_split is None",
        "x1": "is of no part: its tortilla:data_split is additional",
        "x2": "is a GTiff, not a sample of several files",
        "x3": refused["x3"],
        "x4": "holds no day_1, but day_2, day_10, mask, heights",
        "x5": "holds no mask, but day_2, day_10, day_1, heights",
        "x6/day_1": "has 2 bands, 3 declared (R, G, B)",
        "x7/mask": "is 16x16 px, its image set/geobench_set.tortilla/x7/day_1 is 20x20",
        "x8/mask": "holds the value 7, which is no class; name it in tasks.cooked.data.classes, or in its ignore",
        "x9/mask": "holds no pixel of a class, all are ignored",
        "x10/mask": "holds fractions or NaN, a map holds class ids",
        "x11/day_1": "not a PNG, JPEG or TIFF image",
    }
    assert refused["x3"].startswith("truncated: its table should lie at")


def test_labels_that_are_missing_unknown_or_too_many_are_refused(kitchen):
    for name, labels in (("s0", None), ("s1", float("nan")), ("s3", 7), ("s6", 0.5), ("s9", 1.0)):
        files, part = kitchen.samples[name]
        kitchen.samples[name] = ([(file, data, fields | {"labels": labels}) for file, data, fields in files], part)
    kitchen.write()
    kitchen.task("classification")
    lacking = "which tasks.cooked.data.classes lacks"
    assert kitchen.refused() == {
        "s0": "has no labels",
        "s1": "has no labels",
        "s3": f"its labels is 7, {lacking}",
        "s6": f"its labels is 0.5, {lacking}",
    }
    kitchen.task("classification", data={"label_field": "names"})
    assert kitchen.refused()["s1"] == "has 2 labels in names"


def test_several_images_without_dates_are_a_question_back(kitchen):
    kitchen.write()
    kitchen.task(images=["day_*"])
    assert "holds 3 images, day_2, day_10, day_1 and so on; name one, or declare dates" in kitchen.fails()


def test_a_data_set_of_which_no_sample_can_be_used_says_why_of_the_first(kitchen):
    kitchen.write()
    kitchen.task(images=["none_*"])
    told = kitchen.fails().splitlines()[-1]
    assert "no usable sample for tasks.cooked, all 12 were refused; the first: set/" in told
    assert "holds no none_*, but" in told and "data.files" not in told


def test_a_second_sample_of_a_name_is_refused(kitchen):
    kitchen.write()
    kitchen.write("more.tortilla", samples={"s1": kitchen.samples["s2"]})
    kitchen.task()
    assert kitchen.refused() == {"set/more.tortilla/s1": "another sample has its name"}


def test_a_damaged_container_or_a_missing_part_stops_the_index(kitchen):
    kitchen.task()
    assert "holds no samples of format geobench-2; it should hold containers of samples" in kitchen.fails()
    kitchen.write("geobench_set.0000.part.tortilla", parts=2)
    told = kitchen.fails()
    assert "geobench_set.0001.part.tortilla: no such file, one of 1 parts that are missing" in told
    assert "set tasks.cooked.data.missing_parts = report" in told
    kitchen.task(data={"missing_parts": "report"})
    assert len(kitchen.index()) == 12
    path = kitchen.root / "geobench_set.0000.part.tortilla"
    path.write_bytes(path.read_bytes()[:-30])
    assert "set/geobench_set.0000.part.tortilla: truncated" in kitchen.fails()


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("segmentation", {"data": {"classes": {}}}, "data.classes is missing"),
        ("segmentation", {"data": {"classes": ["a", "a"]}}, "tasks.cooked.data.classes: names a twice"),
        ("segmentation", {"data": {"classes": {"a": [1], "b": [1]}}}, "the value 1 is of b and of a"),
        ("segmentation", {"data": {"ignore": [2]}}, "the value 2 is of roof and of ignore"),
        ("segmentation", {"positive_class": "wall"}, "positive_class = wall is not one of ground, roof"),
        ("segmentation", {"data": {"label_field": "labels"}}, "give either label_field"),
        ("classification", {"data": {"label_field": None, "target_file": "mask"}}, "takes data.label_field"),
        ("regression", {"data": {"label_field": "labels", "target_file": None}}, "takes data.target_file"),
        ("regression", {"data": {"split": {"val_share": 0.1}}}, "the data set says the part of every sample"),
    ],
)
def test_what_does_not_fit_together_is_said_before_anything_runs(kitchen, kind, changes, told):
    kitchen.task(kind, **changes)
    assert told in kitchen.fails()


@pytest.mark.parametrize(
    ("kind", "images", "changes", "score"),
    [
        ("segmentation", ["day_*"], {"dates": {"number": 2}}, "miou"),
        ("classification", ["day_1"], {"finetune": {"mode": "linear", "seeds": [0], "epochs": 2}}, "accuracy"),
    ],
)
def test_a_task_is_trained_and_scored_from_its_containers(kitchen, kind, images, changes, score):
    kitchen.write()
    kitchen.task(kind, images, **changes)
    kitchen.workplace.encoders()
    kitchen.index()
    code, printed = kitchen.workplace.gfm("finetune", "cooked", "teacher")
    assert code == 0, printed
    assert score in (kitchen.workplace.folder / "models/tasks/cooked/teacher/scores.csv").read_text()
