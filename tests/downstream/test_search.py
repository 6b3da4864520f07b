"""The search for learning rate and batch size: by validation alone, within its budget, the same after a kill."""

from __future__ import annotations

import csv
import json
import math
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gfm.downstream import finetune, requirements, search, seeds
from gfm.models.encoder import Encoder
from gfm.params import Finetune, Task

pytest.importorskip("optuna")

SPACE = {"trials": 4, "lr": [1e-4, 1e-2], "batch_sizes": [2, 4], "seed": 3}
RESULT = Path("models/search/buildings/teacher")
SCORED = Path("models/tasks/buildings/teacher")


@pytest.fixture
def searching(buildings, drawing):
    """The task `buildings` with a search of four trials of one epoch, indexed."""

    def make(search=SPACE, **finetune):
        workplace = buildings(
            finetune=drawing.short | {"epochs": 1, "max_steps_per_epoch": 2} | finetune, search=search
        )
        code, printed = workplace.gfm("index")
        assert code == 0, printed
        return workplace

    return make


def trials(folder: Path = RESULT) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(folder: Path = RESULT) -> list[tuple[str, str, str]]:
    return [(row["lr"], row["batch_size"], row["val_score"]) for row in trials(folder)]


def test_a_search_leaves_its_best_values_every_trial_and_a_picture(searching):
    workplace = searching()
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 0, printed
    best = json.loads((RESULT / "best.json").read_text())
    rows = trials()
    assert len(rows) == best["trials"] == 4 and best["without_score"] == 0
    assert all(1e-4 <= float(row["lr"]) <= 1e-2 and row["batch_size"] in ("2", "4") for row in rows)
    chosen = rows[best["trial"] - 1]
    assert float(chosen["val_score"]) == max(float(row["val_score"]) for row in rows)
    assert (best["lr"], best["batch_size"]) == (float(chosen["lr"]), int(chosen["batch_size"]))
    assert best["metric"] == "iou" and "no trial reads a test image" in best["scored_on"]
    assert (RESULT / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert f"lr {best['lr']:g}, batch size {best['batch_size']}: validation iou" in printed
    assert best["provenance"]["seed"] == 3 and best["energy"]["method"].startswith("not measured")


def test_finetune_searches_first_and_trains_every_seed_with_what_was_found(searching):
    """The same scores come from the found values written into the parameters by hand."""
    workplace = searching(seeds=[0, 1])
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    run = json.loads((SCORED / "run.json").read_text())
    best = json.loads((SCORED / "search/best.json").read_text())
    assert run["search"]["lr"] == best["lr"] and run["settings"]["search"]["trials"] == 4
    scores = (SCORED / "scores.csv").read_text()
    raw = yaml.safe_load((workplace.folder / "params.yaml").read_text())
    task = raw["tasks"]["buildings"]
    del task["search"]
    task["finetune"] |= {key: best[key] for key in ("lr", "encoder_lr", "batch_size")}
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(raw))
    assert workplace.gfm("finetune", "buildings", "teacher")[0] == 0
    assert (SCORED / "scores.csv").read_text() == scores
    assert "search" not in json.loads((SCORED / "run.json").read_text())
    assert not (SCORED / "search").exists()


def test_more_seeds_or_trials_repeat_no_trial_and_another_space_repeats_all(searching):
    workplace = searching()
    workplace.gfm("search", "buildings", "teacher")
    first = values()
    raw = yaml.safe_load((workplace.folder / "params.yaml").read_text())
    raw["tasks"]["buildings"]["finetune"]["seeds"] = [0, 1]
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(raw))
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0 and "4 of 4 trials were finished before" in printed and "trial 1 of" not in printed
    code, printed = workplace.gfm("search", "buildings", "teacher", "--trials", "6")
    assert "4 of 6 trials were finished before" in printed and values()[:4] == first and len(values()) == 6
    workplace.gfm("search", "buildings", "teacher", "--trials", "2")
    assert values() == first[:2]
    raw["tasks"]["buildings"]["search"]["lr"] = [1e-3, 1e-2]
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(raw))
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 0 and "finished before" not in printed and values() != first


def test_nonsense_in_the_test_split_changes_no_trial(searching, drawing):
    workplace = searching()
    workplace.gfm("search", "buildings", "teacher")
    first = values()
    for number in range(6):  # the same index, so that the images alone could tell
        (workplace.raw / f"b/east/images/{number}.png").unlink()
        (workplace.raw / f"b/east/masks/{number}.png").unlink()
    for file in (workplace.folder / ".gfm/search/buildings").iterdir():
        file.unlink()
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 0, printed
    assert values() == first


def test_a_killed_search_keeps_its_finished_trials_and_gives_the_same_result(searching):
    """Killed inside its third trial, by a signal that nothing can catch."""
    workplace = searching()
    workplace.gfm("search", "buildings", "teacher")
    whole = values()
    (workplace.folder / ".gfm/search/buildings/teacher.journal").unlink()
    code = """
import os, signal, sys
import torch
from gfm.downstream import finetune
torch.set_num_threads(1)
sys.modules["codecarbon"] = None
learn, count = finetune.learn, []
def dying(*given):
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(*given)
finetune.learn = dying
from gfm.cli import main
sys.argv = ["gfm", "search", "buildings", "teacher"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # As a kill while writing leaves them: a lock, and half a line.
    (workplace.folder / ".gfm/search/buildings/teacher.journal.lock").write_text("")
    with (workplace.folder / ".gfm/search/buildings/teacher.journal").open("a") as journal:
        journal.write('{"op_code": 6, "trial_')
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 0 and "2 of 4 trials were finished before" in printed, printed
    assert values() == whole


def test_a_trial_that_diverges_is_counted_and_shown_and_never_chosen(searching):
    workplace = searching(search=SPACE | {"lr": [1e-3, 1e30], "trials": 5})
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 0, printed
    best = json.loads((RESULT / "best.json").read_text())
    lost = [row for row in trials() if not row["val_score"]]
    assert len(lost) == best["without_score"] > 0 and all("training loss" in row["reason"] for row in lost)
    assert "no score: tasks.buildings: the training loss" in printed
    assert f"{len(lost)} of them without a score" in printed and math.isfinite(best["score"])


def test_a_search_without_any_score_is_an_error_that_names_the_space(searching):
    workplace = searching(search=SPACE | {"lr": [1e25, 1e30], "trials": 2})
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 2 and "buildings/teacher: none of 2 trials has a score" in printed
    assert "lower tasks.buildings.search.lr" in printed and not SCORED.exists()


def test_other_errors_stop_the_search(searching):
    workplace = searching()
    (workplace.raw / "b/north/images/2.png").unlink()
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 2 and "raw/b/north/images/2.png: no such file" in printed and not RESULT.exists()


def test_a_broken_journal_is_named(searching):
    workplace = searching()
    file = workplace.folder / ".gfm/search/buildings/teacher.journal"
    file.parent.mkdir(parents=True)
    file.write_text("no journal\nat all\n")
    code, printed = workplace.gfm("search", "buildings", "teacher")
    assert code == 2 and ".gfm/search/buildings/teacher.journal: is no journal of Optuna's" in printed


def test_where_nothing_learns_there_is_nothing_to_search_for(workplace):
    data = {"format": "class-folders", "root": "scenes", "split": {"val": ["a"], "test": ["b"]}}
    workplace.declare(scenes={"kind": "classification", "data": data, "finetune": {"mode": "knn", "seeds": [0]}})
    code, printed = workplace.gfm("search", "scenes", "teacher")
    assert code == 2 and "tasks.scenes.finetune.mode = knn: nothing learns" in printed


def test_a_task_without_a_search_is_told_the_lines_to_write(searching):
    workplace = searching(search=None)
    code, printed = workplace.gfm("search", "buildings", "teacher", "--trials", "1")
    assert code == 0, printed
    best = json.loads((RESULT / "best.json").read_text())
    assert "tasks.buildings.search: {trials: 1}" in printed
    assert f"finetune: {{lr: {best['lr']:g}, encoder_lr: {best['encoder_lr']:g}, batch_size" in printed
    assert workplace.gfm("search", "buildings", "nobody")[0] == 2


def test_every_trial_is_a_run_below_the_searchs_and_only_the_search_counts_for_the_pipeline(searching):
    from gfm.tracking.store import import_mlflow

    workplace = searching(search=SPACE | {"lr": [1e-3, 1e30], "trials": 5})
    raw = yaml.safe_load((workplace.folder / "params.yaml").read_text())
    raw["tracking"] = {}
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(raw))
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    client = import_mlflow().MlflowClient(f"sqlite:///{workplace.folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("gfm").experiment_id])
    (searched,) = [run for run in found if run.data.tags.get("gfm.kind") == "search"]
    (pipeline,) = [run for run in found if run.data.tags.get("gfm.kind") == "pipeline"]
    below = [run for run in found if run.data.tags.get("mlflow.parentRunId") == searched.info.run_id]
    lost = sum(not row["val_score"] for row in trials(SCORED / "search"))
    assert sorted(run.info.status for run in below) == ["FAILED"] * lost + ["FINISHED"] * (5 - lost) and lost
    assert searched.data.tags["mlflow.parentRunId"] == pipeline.info.run_id and pipeline.info.status == "RUNNING"
    assert all("energy.method" in run.data.tags for run in below)
    assert searched.info.status == "FINISHED" and searched.data.tags["scored_on"] == "val"
    assert {run.data.params["lr"] for run in below} == {str(float(row["lr"])) for row in trials(SCORED / "search")}


def test_only_the_search_loads_optuna():
    """Every other command runs where it is not installed, and none gets slower by it."""
    own = Path(search.__file__)
    loads = {
        path: re.search(r"^( *)(import|from) optuna", path.read_text(), re.M) for path in own.parents[1].rglob("*.py")
    }
    assert {path for path, found in loads.items() if found} == {own}
    assert not re.search(r"^(import|from) optuna", own.read_text(), re.M)


@pytest.mark.parametrize(
    "words", [("check",), ("search", "buildings", "teacher"), ("finetune", "buildings", "teacher")]
)
def test_without_optuna_the_fix_is_named(searching, monkeypatch, words):
    workplace = searching()
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    code, printed = workplace.gfm(*words)
    assert code == 2 and "needs optuna, which is not installed; run `pip install" in printed and "[search]" in printed


def test_other_rates_keep_their_ratio_to_the_one_that_is_tried():
    plain = Finetune(lr=1e-3, encoder_lr=2e-4, batch_size=32).at(1e-2, 8)
    assert (plain.lr, plain.encoder_lr, plain.batch_size) == (1e-2, pytest.approx(2e-3), 8)
    schedule = {"base_lr": 1e-4, "warmup_lr": 1e-6, "min_lr": 1e-5, "warmup_epochs": 1}
    found = Finetune.model_validate({"full": {"schedule": schedule}}).at(1e-2, 8).full.schedule
    assert (found.base_lr, found.warmup_lr, found.min_lr) == (1e-2, pytest.approx(1e-4), pytest.approx(1e-3))


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"finetune": {"mode": "knn"}}, "search has no meaning with finetune.mode = knn"),
        ({"search": {"batch_sizes": [3]}, "finetune": {"full": {"mixup": 0.8}}}, "search.batch_sizes names 3"),
        ({"search": {"lr": [1e-2, 1e-3]}}, "the smaller value first"),
        ({"search": {"batch_sizes": [8, 8]}}, "names 8 twice"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(task, told):
    data = {"format": "class-folders", "root": "s", "split": {"val_share": 0.2, "test_share": 0.2}}
    with pytest.raises(ValueError, match=told):
        Task.model_validate({"kind": "classification", "data": data, "search": {}} | task)


@pytest.mark.parametrize(("model", "encoders"), [("teacher", 1), ("random", 3)])
def test_a_probes_images_are_encoded_once_for_all_trials_and_seeds_of_an_encoder(
    workplace, drawing, monkeypatch, model, encoders
):
    """A random encoder is drawn for the search (seed 3) and for each of two seeds, and encodes for each of them."""
    for label, level in (("dark", 0), ("light", 150)):
        for number in range(18):
            drawing.picture(workplace.raw / f"c/{label}/{number}.png", workplace.noise() // 3 + level)
    data = {"format": "class-folders", "root": "c", "split": {"val_share": 0.3, "test_share": 0.3}}
    probe = {"mode": "linear", "seeds": [0, 1], "epochs": 2, "batch_size": 4}
    workplace.declare(probe={"kind": "classification", "data": data, "finetune": probe, "search": SPACE})
    workplace.encoders()
    assert workplace.gfm("index")[0] == 0
    counts = json.loads((workplace.folder / "data/tasks/probe.json").read_text())["counts"]
    seen, forward, learn = [], Encoder.forward, seeds.learn

    def counted(self, image):
        seen.append(len(image))
        return forward(self, image)

    def alone(job, seed, what):
        return learn(replace(job, encoded={}), seed, what)

    def run():
        code, printed = workplace.gfm("finetune", "probe", model)
        assert code == 0, printed
        folder = Path(f"models/tasks/probe/{model}")
        return values(folder / "search"), (folder / "scores.csv").read_text()

    monkeypatch.setattr(Encoder, "forward", counted)
    shared = run()
    drawn = counts["test"]  # a picture of predictions looks at all of them
    known = counts["train"] + counts["val"]
    trained = known + counts["test"] if encoders == 1 else known + 2 * sum(counts.values())
    assert sum(seen) <= trained + drawn
    (workplace.folder / f".gfm/search/probe/{model}.journal").unlink()
    for module in (finetune, seeds):
        monkeypatch.setattr(module, "learn", alone)
    assert run() == shared
