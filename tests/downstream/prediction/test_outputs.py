"""`gfm predict`: tables of whole images, files that cannot be used, and outputs that are whole or not there."""

from __future__ import annotations

import csv
import json
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from gfm.downstream.data import as_seen
from gfm.downstream.prediction.model import Predictor
from gfm.downstream.tasks import Batch

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def _files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def _rows(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_whole_images_become_rows_of_a_table_with_each_class_probability(workplace, adapted, drawing, kind):
    model = adapted(kind)
    pictures = {f"in/{number}.png": workplace.noise(32, 32 + 8 * number) for number in range(3)}
    for path, pixels in pictures.items():
        drawing.picture(Path(path), pixels)
    Path("in/notes.txt").write_text("no image")
    code, printed = workplace.gfm("predict", "t", "teacher", "in", "--out", "table")
    assert code == 0 and "3 images in predictions.csv" in printed, printed
    rows = _rows("table/predictions.csv")
    assert [row["file"] for row in rows] == list(pictures)
    for row, pixels in zip(rows, pictures.values(), strict=True):
        with torch.no_grad():
            logits = model.predict(Batch(as_seen([pixels], model.spec)[None], torch.empty(0)))[0]
        shares = logits.softmax(dim=0) if kind == "classification" else logits.sigmoid()
        names = list(model.spec.classes)
        assert [float(row[f"p_{name}"]) for name in names] == pytest.approx(shares.tolist(), abs=2e-6)
        if kind == "classification":
            assert row["class"] == names[int(logits.argmax())]
        else:
            assert row["classes"] == "|".join(name for name, own in zip(names, logits, strict=True) if own > 0)


def test_a_number_an_image_stands_in_the_table_with_its_unit(workplace, adapted, drawing):
    model = adapted("number")
    pixels = workplace.noise(32, 32)
    drawing.picture(Path("field.png"), pixels)
    code, printed = workplace.gfm("predict", "t", "teacher", "field.png", "--out", "table")
    assert code == 0, printed
    with torch.no_grad():
        number = model.predict(Batch(as_seen([pixels], model.spec)[None], torch.empty(0))).item()
    [row] = _rows("table/predictions.csv")
    assert row["unit"] == "t/ha" and float(row["value"]) == pytest.approx(number, rel=1e-5)


def test_a_scene_is_no_image_to_label_as_a_whole(workplace, adapted, drawing):
    adapted("classification")
    drawing.picture(Path("scene.png"), workplace.noise(65, 40))
    code, printed = workplace.gfm("predict", "t", "teacher", "scene.png", "--out", "table")
    assert code == 2 and not [path for path in Path().iterdir() if "table" in path.name]
    assert "scene.png: is 40x65 px, the model was trained on whole images of 32x32; cut it into such tiles" in printed


def test_files_that_cannot_be_used_are_named_with_the_fix_and_stop_no_other(workplace, adapted, drawing):
    adapted("segmentation")
    drawing.picture(Path("in/good.png"), workplace.noise(32, 40))
    drawing.tiff(Path("in/four.tif"), np.ones((20, 20, 4), np.uint8), 5e5)
    drawing.tiff(Path("in/wide.tif"), np.ones((20, 20, 3), np.uint16), 5e5)
    Path(os.fsdecode(b"in/\xff.png")).write_bytes(Path("in/good.png").read_bytes())
    drawing.tiff(Path("in/cut.tif"), workplace.noise(300, 300), 5e5)
    whole = Path("in/cut.tif").read_bytes()
    Path("in/cut.tif").write_bytes(whole[: len(whole) * 2 // 3])
    code, printed = workplace.gfm("predict", "t", "teacher", "in", "missing.tif", "--out", "maps")
    assert code == 2 and "5 of 6 could not be predicted, see maps/quarantine.csv" in printed
    assert sorted(path.name for path in Path("maps").iterdir()) == [
        "good.tif", "good.tif.aux.xml", "quarantine.csv", "run.json"
    ]  # fmt: skip
    reasons = {row["file"]: row["reason"] for row in _rows("maps/quarantine.csv")}
    assert reasons["in/four.tif"] == (
        "has 4 bands, 3 declared (R, G, B); declare its bands in tasks.t.data.imagery.bands, or convert the file"
    )
    assert reasons["in/wide.tif"].startswith("is uint16, declared uint8; set tasks.t.data.imagery.dtype")
    assert reasons["in/cut.tif"].startswith("truncated or corrupt")
    assert reasons["in/\\udcff.png"] == "its name is not valid UTF-8; rename it"
    assert reasons["missing.tif"].startswith("no such file")
    assert json.loads(Path("maps/run.json").read_text())["failed"] == 5


def test_where_nothing_can_be_predicted_nothing_is_left(workplace, adapted):
    adapted("segmentation")
    code, printed = workplace.gfm("predict", "t", "teacher", "missing.tif", "--out", "maps")
    assert code == 2 and "nothing could be predicted: missing.tif: no such file" in printed
    assert not [path for path in Path().iterdir() if "maps" in path.name]


def test_requests_that_make_no_sense_are_one_line(workplace, adapted, drawing):
    adapted("regression")
    for folder in ("a", "b"):
        drawing.picture(Path(folder) / "x.png", workplace.noise(32, 32))
    Path("empty").mkdir()
    for words, line in (
        (("a/x.png", "--probabilities"), "--probabilities is for segmentation and change; tasks.t is regression"),
        (("empty",), "empty: holds no image (.tif, .png, .jpg)"),
        (("a", "b"), "a/x.png and b/x.png would both be written to x.tif; predict them into two folders"),
    ):
        code, printed = workplace.gfm("predict", "t", "teacher", *words, "--out", "maps")
        assert code == 2 and line in printed and not Path("maps").exists(), printed


def test_a_model_that_gives_no_numbers_is_no_map(workplace, adapted, drawing, monkeypatch):
    model = adapted("segmentation")
    drawing.picture(Path("x.png"), workplace.noise(32, 32))
    monkeypatch.setattr(type(model), "predict", lambda self, batch: torch.full((1, 3, 32, 32), torch.nan))
    code, printed = workplace.gfm("predict", "t", "teacher", "x.png", "--out", "maps")
    assert code == 2 and "seed-0.safetensors: gives what is no finite number" in printed and not Path("maps").exists()


def test_a_folder_that_is_there_is_never_written_over(workplace, adapted, drawing):
    adapted("segmentation")
    drawing.picture(Path("mine/x.png"), workplace.noise(32, 32))
    before = Path("mine/x.png").read_bytes()
    code, printed = workplace.gfm("predict", "t", "teacher", "mine", "--out", "mine")
    assert code == 2 and "mine: exists already; give a new folder, or remove it" in printed
    assert [path.name for path in Path("mine").iterdir()] == ["x.png"] and Path("mine/x.png").read_bytes() == before


def test_scenes_that_a_stopped_call_finished_are_taken_over_and_said_to_be(workplace, adapted, drawing, monkeypatch):
    adapted("segmentation")
    for name in "abc":
        drawing.picture(Path(f"in/{name}.png"), workplace.noise(32, 32))
    looked, predict = [], Predictor.logits

    def stop_at(number):
        def logits(self, chips):
            looked.append(1)
            if len(looked) == number:
                raise KeyboardInterrupt
            return predict(self, chips)

        looked.clear()
        monkeypatch.setattr(Predictor, "logits", logits)

    stop_at(3)
    assert workplace.gfm("predict", "t", "teacher", "in", "--out", "maps")[0] == 130
    assert not Path("maps").exists()
    drawing.picture(Path("in/b.png"), workplace.noise(32, 32))  # another image under the same name
    stop_at(0)
    code, printed = workplace.gfm("predict", "t", "teacher", "in", "--out", "maps")
    assert code == 0 and len(looked) == 2, printed  # b, which changed, and c
    assert "a: was finished before, from the same files" in printed
    run = json.loads(Path("maps/run.json").read_text())
    assert [scene["kept"] for scene in run["scenes"]] == [True, False, False]
    assert run["energy"]["method"].endswith("without 1 scene of a call that did not end")
    stop_at(0)
    assert workplace.gfm("predict", "t", "teacher", "in", "--out", "again")[0] == 0 and len(looked) == 3
    for name in "abc":
        assert Path(f"maps/{name}.tif").read_bytes() == Path(f"again/{name}.tif").read_bytes()


def _cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _zero_the_end(path):
    """As a file's size may be on the disk before its bytes are."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("a.tif", _cut),
        ("a_probabilities.tif", _zero_the_end),
        ("a_probabilities.tif", Path.unlink),
        ("a.tif.aux.xml", Path.unlink),
        (".a.finished", _cut),
        (".a.finished", Path.unlink),
    ],
)
def test_a_map_that_is_not_as_it_was_finished_is_made_again(workplace, adapted, drawing, monkeypatch, name, harm):
    adapted("segmentation")
    for image in "ab":
        drawing.picture(Path(f"in/{image}.png"), workplace.noise(32, 32))
    words = ("predict", "t", "teacher", "in", "--probabilities", "--out")
    assert workplace.gfm(*words, "whole")[0] == 0
    predict, looked = Predictor.logits, []

    def stopped(self, chips):
        looked.append(1)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return predict(self, chips)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "logits", stopped)
        assert workplace.gfm(*words, "maps")[0] == 130
    harm(Path(".maps.unfinished") / name)
    code, printed = workplace.gfm(*words, "maps")
    assert code == 0 and "was finished before" not in printed, printed
    assert not any(scene["kept"] for scene in json.loads(Path("maps/run.json").read_text())["scenes"])
    assert _files("maps") == _files("whole")
    for path in Path("whole").glob("*.tif*"):
        assert (Path("maps") / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "results"),
    [
        ("segmentation", ["a.tif", "a.tif.aux.xml"]),
        ("regression", ["a.tif"]),
        ("classification", ["predictions.csv"]),
    ],
)
def test_nothing_that_an_earlier_call_left_comes_along(workplace, adapted, drawing, kind, results):
    adapted(kind)
    drawing.picture(Path("a.png"), workplace.noise(32, 32))
    left = Path(".maps.unfinished")
    for folder in ("more/of/it", "b.tif", ".a.tif.part"):
        (left / folder).mkdir(parents=True)
    Path("mine.txt").write_text("mine")
    (left / results[-1]).symlink_to(Path("mine.txt").resolve())
    for name in ("old.tif", "a_probabilities.tif", "quarantine.csv"):
        (left / name).write_bytes(b"half a file")
    for name in {"a.tif", "a.tif.aux.xml", "predictions.csv"} - {results[-1]}:
        (left / name).write_bytes(b"half a file")
    code, printed = workplace.gfm("predict", "t", "teacher", "a.png", "--out", "maps")
    assert code == 0, printed
    assert _files("maps") == [*results, "run.json"]
    assert Path("mine.txt").read_text() == "mine"
    if kind != "classification":
        with rasterio.open("maps/a.tif") as dataset:
            assert dataset.read().shape == (1, 32, 32)


def test_the_earlier_map_of_a_scene_that_cannot_be_used_now_does_not_come_along(workplace, adapted, drawing):
    adapted("segmentation")
    for name in "ab":
        drawing.picture(Path(f"in/{name}.png"), workplace.noise(32, 32))
    assert workplace.gfm("predict", "t", "teacher", "in", "--out", "maps")[0] == 0
    Path("maps").rename(".maps.unfinished")
    Path("in/a.png").write_bytes(b"no picture")
    assert workplace.gfm("predict", "t", "teacher", "in", "--out", "maps")[0] == 2
    assert _files("maps") == ["b.tif", "b.tif.aux.xml", "quarantine.csv", "run.json"]


def test_a_map_never_names_another_file_than_it_was_asked_for(workplace, adapted, drawing, monkeypatch):
    adapted("segmentation")
    drawing.picture(Path("old/a.png"), workplace.noise(32, 32))
    with monkeypatch.context() as patch:
        patch.setattr("gfm.downstream.prediction.predict.write_run", lambda *given: [][0])
        with pytest.raises(IndexError):
            workplace.gfm("predict", "t", "teacher", "old", "--out", "maps")
    assert ".a.finished" in _files(".maps.unfinished")  # kept until the end
    Path("old").rename("new")
    assert workplace.gfm("predict", "t", "teacher", "new", "--out", "maps")[0] == 0
    with rasterio.open("maps/a.tif") as dataset:
        assert dataset.tags()["GFM_INPUT"] == "new/a.png"


@pytest.mark.parametrize(("kind", "result"), [("segmentation", "a.tif"), ("classification", "predictions.csv")])
def test_a_folder_in_the_place_of_a_result_gives_way(workplace, adapted, drawing, kind, result):
    adapted(kind)
    drawing.picture(Path("a.png"), workplace.noise(32, 32))
    (Path(".maps.unfinished") / result / "x").mkdir(parents=True)
    code, printed = workplace.gfm("predict", "t", "teacher", "a.png", "--out", "maps")
    assert code == 0 and (Path("maps") / result).is_file(), printed


def test_a_link_in_the_place_of_the_unfinished_folder_is_never_followed(workplace, adapted, drawing):
    adapted("segmentation")
    drawing.picture(Path("mine/a.png"), workplace.noise(32, 32))
    Path(".maps.unfinished").symlink_to("mine")
    code, printed = workplace.gfm("predict", "t", "teacher", "mine", "--out", "maps")
    assert code == 2 and ".maps.unfinished: is not a folder; remove it" in printed
    assert _files("mine") == ["a.png"]


def test_a_disk_without_room_is_one_line_and_leaves_no_map(workplace, adapted, drawing):
    adapted("segmentation")
    drawing.picture(Path("scene.png"), workplace.noise(200, 200))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # Python ignores the signal: writing fails
    try:
        code, printed = workplace.gfm("predict", "t", "teacher", "scene.png", "--out", "maps", "--probabilities")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and "scene_probabilities.tif: cannot be written (" in printed, printed
    assert printed.rstrip().endswith("; make room, or give another place") and not Path("maps").exists()
    assert not list(Path().rglob("*.tif*"))


def test_a_larger_scene_takes_no_more_memory(workplace, adapted, monkeypatch):
    adapted("segmentation", chip=128)
    monkeypatch.setattr("gfm.downstream.prediction.windows.PANEL_PX", 512)
    monkeypatch.setattr(
        Predictor, "logits", lambda self, chips: np.zeros((len(chips), 3, 128, 128), np.float32)
    )  # of any model: the rest is what could grow

    def peak(height, width):
        profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open("scene.tif", "w", sparse_ok=True, **profile):
            pass
        tracemalloc.start()
        try:
            code, printed = workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", f"maps-{height}-{width}")
            assert code == 0, printed
            return tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    peak(128, 128)  # what is loaded once
    assert peak(2048, 2048) < 1.2 * peak(1024, 512) + 1  # MiB; the sums alone of all pixels would take 64
