"""`gfm finetune`: what it leaves, that seeds repeat, and that the test split decides nothing."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file


def _scores(workplace, task="buildings", model="teacher"):
    return pd.read_csv(workplace.folder / "models/tasks" / task / model / "scores.csv")


def test_a_model_is_tested_once_with_every_seed_and_everything_is_written(buildings, drawing):
    workplace = buildings(finetune=drawing.short | {"seeds": [0, 3]})
    assert workplace.gfm("index")[0] == 0
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    folder = workplace.folder / "models/tasks/buildings/teacher"
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv", "predictions.png", "run.json", "scores.csv", "seed-0.safetensors", "seed-3.safetensors"
    ]  # fmt: skip
    scores = _scores(workplace)
    assert list(scores.columns) == ["model", "task", "metric", "score", "seed", "split"]
    assert scores["metric"].iloc[0] == "iou" and set(scores["split"]) == {"val", "test"}
    assert len(scores[(scores["split"] == "test") & (scores["metric"] == "iou")]) == 2
    history = pd.read_csv(folder / "history.csv")
    assert list(history.columns) == ["seed", "epoch", "step", "train_loss", "val_score"] and len(history) == 4
    run = json.loads((folder / "run.json").read_text())
    assert run["primary_metric"] == "iou" and run["seeds"] == [0, 3] and run["run_id"] is None
    assert run["energy"]["kwh"] is None and run["energy"]["method"].startswith("not measured")
    weights = load_file(folder / "seed-0.safetensors")
    assert run["parameters"] > 1000 and any(key.startswith("decoder.") for key in weights)
    assert any(key.startswith("encoder.") for key in weights)


@pytest.mark.parametrize("model", ["teacher", "random"])
def test_the_same_seed_gives_the_same_scores_and_another_seed_does_not(buildings, drawing, model):
    workplace = buildings(finetune=drawing.short | {"seeds": [0, 1]})
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", model)
    first = _scores(workplace, model=model)
    workplace.gfm("finetune", "buildings", model)
    pd.testing.assert_frame_equal(_scores(workplace, model=model), first)
    test = first[first["split"] == "test"].set_index(["metric", "seed"])["score"]
    assert test["pixel_accuracy", 0] != test["pixel_accuracy", 1]


def test_nonsense_in_the_test_split_changes_nothing_but_the_test_scores(buildings, drawing):
    workplace = buildings()
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "teacher")
    history = (workplace.folder / "models/tasks/buildings/teacher/history.csv").read_text()
    before = _scores(workplace)
    for number in range(6):
        mask = workplace.dice.integers(0, 2, (20, 24)).astype(np.uint8)
        drawing.picture(workplace.raw / f"b/east/masks/{number}.png", mask)
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "teacher")
    after = _scores(workplace)
    assert (workplace.folder / "models/tasks/buildings/teacher/history.csv").read_text() == history
    val = before["split"] == "val"
    pd.testing.assert_frame_equal(after[val], before[val])
    assert not after[~val].equals(before[~val])


def test_the_tested_weights_are_those_of_the_epoch_that_validation_chose(buildings, drawing):
    settings = drawing.short | {"epochs": 6, "lr": 0.05, "encoder_lr": 0.05}
    workplace = buildings(finetune=settings)
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "teacher")
    folder = workplace.folder / "models/tasks/buildings/teacher"
    history = pd.read_csv(folder / "history.csv")
    chosen = json.loads((folder / "run.json").read_text())["chosen_epochs"]["0"]
    assert chosen == history["epoch"][history["val_score"].idxmax()]
    scores = _scores(workplace)
    val = scores[(scores["split"] == "val") & (scores["metric"] == "iou")]["score"].item()
    assert val == pytest.approx(history["val_score"].max())


@pytest.mark.slow
def test_a_task_learns_what_is_plain_to_see(buildings, drawing):
    settings = drawing.short | {"epochs": 8, "max_steps_per_epoch": 4}
    workplace = buildings(finetune=settings)
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "teacher")
    scores = _scores(workplace)
    assert scores[(scores["split"] == "test") & (scores["metric"] == "iou")]["score"].item() > 0.6


@pytest.mark.slow
def test_sets_too_big_for_memory_give_the_same_scores(buildings, monkeypatch):
    workplace = buildings()
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "teacher")
    held = _scores(workplace)
    monkeypatch.setattr("gfm.downstream.data.HELD_BYTES", 10)
    workplace.gfm("finetune", "buildings", "teacher")
    pd.testing.assert_frame_equal(_scores(workplace), held)


@pytest.mark.slow
def test_classes_are_told_apart_and_shown(workplace, drawing):
    for name, colour in (("water", 40), ("sand", 200)):
        for number in range(14):
            picture = np.clip(workplace.noise(18, 18) // 6 + colour, 0, 255).astype(np.uint8)
            drawing.picture(workplace.raw / "s" / name / f"{number}.png", picture)
    data = {"format": "class-folders", "root": "s", "split": {"val_share": 0.25, "test_share": 0.25}}
    settings = drawing.short | {"epochs": 5}
    workplace.declare(scenes={"kind": "classification", "data": data, "finetune": settings})
    workplace.encoders()
    workplace.gfm("index")
    code, printed = workplace.gfm("finetune", "scenes", "teacher")
    assert code == 0, printed
    scores = _scores(workplace, "scenes")
    assert list(scores["metric"].unique()) == ["accuracy", "mean_class_accuracy"]
    assert scores[scores["split"] == "test"]["score"].min() > 0.9
    assert (workplace.folder / "models/tasks/scenes/teacher/predictions.png").exists()


def test_the_fixes_for_what_is_missing_are_named(buildings):
    workplace = buildings()
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "data/tasks/buildings.parquet: no such file; run `gfm index` first" in printed
    workplace.gfm("index")
    assert "run `gfm pretrain gfm` first" in workplace.gfm("finetune", "buildings", "gfm")[1]
    assert "tasks has no roofs; it has buildings" in workplace.gfm("finetune", "roofs", "teacher")[1]
    assert not list((workplace.folder / "models/tasks/buildings").iterdir())


def test_an_image_that_vanished_after_indexing_is_named(buildings):
    workplace = buildings()
    workplace.gfm("index")
    (workplace.raw / "b/north/images/2.png").unlink()
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "raw/b/north/images/2.png: no such file" in printed


def test_two_processes_never_write_one_folder(buildings):
    from pathlib import Path

    from gfm.output_folder import new_folder

    workplace = buildings()
    workplace.gfm("index")
    with new_folder(Path("models/tasks/buildings/teacher")):
        code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "another process is writing it" in printed


def test_the_quarantine_is_known_where_the_scores_are(buildings):
    workplace = buildings()
    (workplace.raw / "b/north/masks/0.png").unlink()
    workplace.gfm("index")
    workplace.gfm("finetune", "buildings", "random")
    run = json.loads((workplace.folder / "models/tasks/buildings/random/run.json").read_text())
    assert run["quarantined"] == len(workplace.quarantined()) == 1


def test_a_file_that_has_changed_since_the_index_is_named_before_anything_trains(buildings, drawing):
    workplace = buildings()
    assert workplace.gfm("index")[0] == 0
    changed = workplace.raw / "b/north/masks/2.png"
    kept = changed.read_bytes()
    later = (workplace.folder / "data/tasks/buildings.parquet").stat().st_mtime + 5
    drawing.picture(changed, np.full((20, 24), 255, np.uint8))
    os.utime(changed, (later, later))
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "b/north/masks/2.png: has changed since `gfm index` looked at it; run `gfm index`" in printed
    changed.write_bytes(kept)  # written later, with the same bytes: what a copy or a checkout leaves
    os.utime(changed, (later, later))
    assert workplace.gfm("finetune", "buildings", "teacher")[0] == 0


def test_classes_that_were_renamed_since_the_index_are_an_error(buildings, drawing):
    workplace = buildings()
    assert workplace.gfm("index")[0] == 0
    task = drawing.segmentation(positive_class="roof")
    task["data"]["classes"] = ["ground", "roof"]
    workplace.declare(buildings=task)
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "made for the classes ground, building, now ground, roof; run `gfm index` again" in printed
