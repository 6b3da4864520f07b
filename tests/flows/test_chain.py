"""Stages brought up to date: side by side, one flow a workspace, with the right artifacts and tracking run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str], ModuleType]


class Runner:
    """Stands for Prefect's: calls the task at once, every stage runs but for the one that fails."""

    failing: str | None = None
    error: type[Exception] = Exception
    outcome: Any = None

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, task: object, parameters: dict[str, Any]) -> Future[Any]:
        done: Future[Any] = Future()
        if parameters["stage"] == self.failing:
            done.set_exception(self.error(f"stage {self.failing} failed"))
        else:
            done.set_result(self.outcome(parameters["stage"], "up to date", 0.0))
        return done


@pytest.fixture
def chain(flow_module: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loaded, stages = flow_module("chain"), flow_module("stages")
    monkeypatch.setattr(Runner, "error", stages.PipelineError)
    monkeypatch.setattr(Runner, "outcome", stages.Outcome)
    monkeypatch.setattr(Runner, "failing", None)
    monkeypatch.setattr(loaded, "ThreadPoolTaskRunner", Runner)
    monkeypatch.setattr(loaded, "gfm", lambda folder, *words: None)
    return loaded


def test_a_second_flow_in_a_workspace_is_refused(workspace: Path, chain: ModuleType) -> None:
    with (
        chain.only_flow_in(workspace),
        pytest.raises(chain.PipelineError, match="another run of the pipeline is at work"),
        chain.only_flow_in(workspace),
    ):
        pass


def test_a_failed_stage_lets_those_beside_it_end_and_is_the_only_one_that_failed(
    workspace: Path, chain: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(Runner, "failing", "group@x")
    monkeypatch.setattr(chain, "publish", lambda outcomes, folder, run_id: told.extend(outcomes))
    (workspace / "dvc.yaml").write_text(
        (workspace / "dvc.yaml").read_text(encoding="utf-8") + "  last: {cmd: 'true', deps: [one.txt]}\n",
        encoding="utf-8",
    )
    with pytest.raises(chain.PipelineError, match="stage group@x failed"):
        chain.bring_up_to_date(str(workspace), at_once=2)
    assert {outcome.stage: outcome.state for outcome in told} == {
        "one": "up to date",
        "group@x": "failed",
        "group@y": "up to date",
        "last": "not reached",
    }


@pytest.mark.parametrize(
    ("chosen", "failing", "left"),
    [
        (["index", "evaluate"], None, ["stages", "results"]),
        (["index", "evaluate"], "index", ["stages"]),
        (["index", "evaluate"], "evaluate", ["stages"]),
        (["index"], None, ["stages"]),
    ],
)
def test_the_results_table_is_left_only_where_this_run_brought_it_up_to_date(
    workspace: Path,
    chain: ModuleType,
    flow_module: Load,
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[str],
    failing: str | None,
    left: list[str],
) -> None:
    (workspace / "reports").mkdir()
    (workspace / "reports/results.csv").write_text("model,score\ngfm,1\n", encoding="utf-8")
    artifacts = flow_module("artifacts")
    found: list[str] = []
    monkeypatch.setattr(Runner, "failing", failing)
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: None)
    monkeypatch.setattr(artifacts, "gfm", lambda folder, *words: None)
    monkeypatch.setattr(chain, "choose_stages", lambda folder, stages: chosen)
    for kind in ("table", "markdown", "link"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", lambda key, **content: found.append(key))
    try:
        chain.bring_up_to_date(str(workspace))
    except chain.PipelineError:
        assert failing is not None
    assert found == left


def test_an_artifact_that_cannot_be_left_does_not_hide_which_stage_failed(
    workspace: Path, chain: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object) -> None:
        raise RuntimeError("no server")

    monkeypatch.setattr(Runner, "failing", "one")
    monkeypatch.setattr(chain, "publish", refused)
    with pytest.raises(chain.PipelineError, match="stage one failed"):
        chain.bring_up_to_date(str(workspace))
    assert "could not be left" in caplog.text and "no server" in caplog.text


@pytest.mark.parametrize(
    ("params", "link"),
    [
        ("tracking: {uri: 'http://127.0.0.1:5000/'}", "http://127.0.0.1:5000"),
        ("tracking: {uri: sqlite:///mlflow.db}", None),
        ("tracking: {}", None),
        ("[]", None),
    ],
)
def test_a_link_to_mlflow_is_left_where_there_is_a_server(
    workspace: Path, flow_module: Load, params: str, link: str | None
) -> None:
    (workspace / "params.yaml").write_text(params, encoding="utf-8")
    assert flow_module("artifacts").tracking_server(workspace) == link


def test_a_run_that_the_caller_opened_is_used_and_left_to_the_caller(
    workspace: Path, chain: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GFM_PIPELINE_RUN", "abc")
    monkeypatch.setattr(chain, "gfm", lambda *words: pytest.fail("opened or closed a run of its own"))
    assert chain.open_run(workspace) == "abc"
    assert chain.close_run(workspace, "abc", "FINISHED") == "abc"


def test_without_a_tracking_run_the_flow_goes_on_and_its_log_says_why(
    workspace: Path,
    chain: ModuleType,
    flow_module: Load,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = subprocess.CompletedProcess([], 2, "", "gfm: tracking.uri = http://x: no tracking server answers")
    monkeypatch.setattr(chain, "gfm", lambda *words: refused)
    assert chain.open_run(workspace) is None
    assert "no tracking server answers" in caplog.text
    assert "GFM_PIPELINE_RUN" not in flow_module("stages").environment(None)
