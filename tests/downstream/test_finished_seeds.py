"""A fine-tuning that was killed goes on with the seeds that it had finished."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gfm.downstream import seeds
from gfm.downstream.finished_seeds import FinishedSeeds, write_result
from gfm.downstream.result import SeedResult
from gfm.errors import GfmError
from gfm.tracking.carbon import Energy

RESULT = Path("models/tasks/buildings/teacher")
KEPT = Path(".gfm/finetune/buildings/teacher")
KILLED_IN_THE_SECOND = """
import os, signal, sys
import torch
from gfm.downstream import seeds
torch.set_num_threads(1)
sys.modules["codecarbon"] = None
learn = seeds.learn
def dying(job, seed, what):
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(job, seed, what)
seeds.learn = dying
from gfm.cli import main
sys.argv = ["gfm", "finetune", "buildings", "teacher"]
main()
"""


@pytest.fixture
def made(buildings, drawing):
    """The task with two seeds, indexed; `tracked` records runs."""

    def make(tracked=False):
        workplace = buildings(finetune=drawing.short | {"seeds": [0, 3], "epochs": 1})
        if tracked:
            change(workplace, lambda raw: raw.update(tracking={}))
        assert workplace.gfm("index")[0] == 0
        return workplace

    return make


@pytest.fixture
def stopped(made, trained, monkeypatch):
    """The same, trained until an error in the second seed."""

    def make(tracked=False):
        workplace, learn = made(tracked), seeds.learn

        def failing(job, seed, what):
            if seed == 3:
                raise GfmError("it ends here")
            return learn(job, seed, what)

        with monkeypatch.context() as patch:
            patch.setattr(seeds, "learn", failing)
            assert workplace.gfm("finetune", "buildings", "teacher")[0] == 2
        assert not RESULT.exists()
        trained.clear()
        return workplace

    return make


@pytest.fixture
def trained(monkeypatch):
    """The seeds that are trained from now on."""
    learn, seen = seeds.learn, []

    def told(job, seed, what):
        seen.append(seed)
        return learn(job, seed, what)

    monkeypatch.setattr(seeds, "learn", told)
    return seen


def change(workplace, edit):
    raw = yaml.safe_load((workplace.folder / "params.yaml").read_text())
    edit(raw)
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(raw))


def content():
    """What is the same in every run."""
    return {path.name: path.read_bytes() for path in RESULT.iterdir() if path.name != "run.json"}


def test_after_a_kill_the_seeds_that_are_left_are_trained_and_all_ends_as_if_undisturbed(made, trained):
    """Killed by a signal that nothing can catch."""
    workplace = made()
    words = [sys.executable, "-c", KILLED_IN_THE_SECOND]
    done = subprocess.run(words, cwd=workplace.folder, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not RESULT.exists()
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    assert trained == [3] and "1 of 2 seeds were finished before" in printed
    resumed, run = content(), json.loads((RESULT / "run.json").read_text())
    assert set(resumed) == {
        "history.csv", "predictions.png", "scores.csv", "seed-0.safetensors", "seed-3.safetensors"
    }  # fmt: skip
    assert not KEPT.exists()
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert trained == [3, 0, 3] and "finished before" not in printed
    assert content() == resumed
    again = json.loads((RESULT / "run.json").read_text())
    assert (again["samples"], again["chosen_epochs"]) == (run["samples"], run["chosen_epochs"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda task: task["finetune"].update(lr=2e-3),
        lambda task: task["finetune"].update(seeds=[3, 0]),  # another one is drawn
    ],
)
def test_other_settings_begin_anew(stopped, trained, edit):
    workplace = stopped()
    change(workplace, lambda raw: edit(raw["tasks"]["buildings"]))
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    assert sorted(trained) == [0, 3]


def test_a_seed_that_is_no_longer_asked_for_is_not_in_the_result(stopped, trained):
    workplace = stopped()
    change(workplace, lambda raw: raw["tasks"]["buildings"]["finetune"].update(seeds=[0]))
    assert workplace.gfm("finetune", "buildings", "teacher")[0] == 0
    assert trained == [] and "seed-3.safetensors" not in content()


def test_other_data_begin_anew(stopped, trained, drawing):
    workplace = stopped()
    drawing.picture(workplace.raw / "b/north/images/0.png", workplace.noise(20, 24))
    assert workplace.gfm("index")[0] == 0
    assert workplace.gfm("finetune", "buildings", "teacher")[0] == 0
    assert trained == [0, 3]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Seed 0, finished."""
    monkeypatch.chdir(tmp_path)
    finished = FinishedSeeds("buildings", "teacher", "these settings")
    result = SeedResult(0, 1, {"iou": 0.4}, {"iou": 0.5}, [], 8, 10, 10, {})
    with finished.place(0) as folder:
        (folder / "seed-0.safetensors").write_bytes(b"weights")
        write_result(folder, result, Energy(None, None, 1.0, "not measured", "none", "FRA", None))
    assert finished.read(0)[0] == result
    return finished


def replaced(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "seed-0.safetensors").write_bytes(b"weight"),
        lambda folder: (folder / "seed-0.safetensors").unlink(),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: replaced(folder / "result.json", "0.5", "0.9"),
        lambda folder: replaced(folder / "result.json", "{", ""),
        lambda folder: ((folder / "result.json").unlink(), (folder / "result.json").mkdir()),
        lambda folder: (shutil.rmtree(folder), folder.write_text("")),
    ],
)
def test_what_is_no_longer_as_it_was_written_is_made_again(kept, spoil):
    spoil(kept.folder / "seed-0")
    assert kept.read(0) is None
    with kept.place(0) as folder:
        (folder / "seed-0.safetensors").write_bytes(b"again")
    assert (kept.folder / "seed-0/seed-0.safetensors").read_bytes() == b"again"


def test_a_seed_under_another_ones_name_is_not_believed(kept):
    shutil.copytree(kept.folder / "seed-0", kept.folder / "seed-1")
    assert kept.read(1) is None


def test_rubbish_beside_it_is_removed(kept):
    (KEPT / "rubbish").write_text("")
    (kept.folder / "run.json").mkdir()
    again = FinishedSeeds("buildings", "teacher", "these settings")
    assert again.run_id is None and again.read(0) is not None
    again.run_id = "r1"
    assert again.run_id == "r1" and [path.name for path in KEPT.iterdir()] == [kept.folder.name]
    again.forget()
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text("")
    assert FinishedSeeds("buildings", "teacher", "these settings").read(0) is None


def test_it_goes_on_in_its_own_run(stopped):
    from gfm.tracking.store import import_mlflow

    workplace = stopped(tracked=True)
    code, printed = workplace.gfm("finetune", "buildings", "teacher")
    assert code == 0, printed
    client = import_mlflow().MlflowClient(f"sqlite:///{workplace.folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("gfm").experiment_id])
    (run,) = [run for run in found if run.data.tags.get("gfm.kind") == "finetune"]
    assert run.info.status == "FINISHED" and run.data.tags["gfm.resumes"] == "1"
    assert json.loads((RESULT / "run.json").read_text())["run_id"] == run.info.run_id
    for seed in (0, 3):
        assert len(client.get_metric_history(run.info.run_id, f"seed{seed}.test_iou")) == 1
