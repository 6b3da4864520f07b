"""A table or report that the scores, parameters or encoders have overtaken says so, with the command to run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gfm.evaluation.evaluate import evaluate
from gfm.evaluation.table import print_results


@pytest.fixture(scope="module")
def made(fabricate: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished chain, evaluated once."""
    folder, monkeypatch = tmp_path_factory.mktemp("made"), pytest.MonkeyPatch()
    monkeypatch.chdir(folder)
    workspace = fabricate()
    evaluate(workspace.params)
    monkeypatch.undo()
    return workspace, folder


@pytest.fixture
def workspace(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of it to work in."""
    shutil.copytree(made[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return made[0]


def told(params: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The line of `gfm results` that says what is stale; empty where nothing is."""
    capsys.readouterr()
    print_results(params)
    lines = [line for line in capsys.readouterr().out.splitlines() if "stale" in line]
    assert len(lines) < 2
    return "".join(lines)


def test_a_table_that_is_up_to_date_says_nothing(workspace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(workspace.params, capsys) == ""
    assert "changed since" not in Path("reports/report.html").read_text()


def test_newer_scores_are_missed(workspace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.write_run("scenes", "gfm", (0.1, 0.2, 0.3))
    assert told(workspace.params, capsys) == (
        "The report is stale: it lacks the newer scores of scenes gfm. Run `dvc repro evaluate`."
    )


def test_edited_parameters_are_named(workspace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    params = workspace.params
    scenes = params.tasks["scenes"]
    faster = scenes.model_copy(update={"finetune": scenes.finetune.model_copy(update={"lr": 0.5})})
    said = told(params.model_copy(update={"seed": 7, "tasks": params.tasks | {"scenes": faster}}), capsys)
    assert "seed, tasks changed in the parameters since it was made" in said
    assert "tasks.scenes changed since scenes random, scenes teacher, scenes gfm ran" in said
    elsewhere = params.promotion.model_copy(update={"margin": 0.5})  # which no score depends on
    assert told(params.model_copy(update={"promotion": elsewhere}), capsys) == ""


def test_scores_of_another_encoder_are_told(workspace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("models/tasks/change/gfm/run.json")
    run.write_text(json.dumps(json.loads(run.read_text()) | {"encoder": "0" * 32}))
    Path("models/encoders/gfm/config.json").write_text("{}")
    assert told(workspace.params, capsys) == (
        "The report is stale: the encoder gfm changed since change gfm ran. Run `dvc repro evaluate`."
    )


def test_reports_fetched_without_the_models_are_shown(workspace: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("models/tasks")
    assert told(workspace.params, capsys) == ""
