"""The flow runs a workspace's stages through DVC, says what it skipped and why it failed, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FLOW = Path(__file__).resolve().parents[2] / "flows" / "pipeline.py"


def run_flow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, str(FLOW), "--workspace", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**environment, "PREFECT_HOME": str(folder / ".prefect")},
    )


@pytest.mark.slow
def test_without_a_server_the_flow_runs_all_stages_then_skips_them_then_says_what_failed(workspace: Path) -> None:
    first = run_flow(workspace)
    assert first.returncode == 0, first.stderr
    assert "step x" in first.stderr + first.stdout
    assert "ran 3 stages, up to date: none" in first.stderr + first.stdout

    second = run_flow(workspace)
    assert "ran 0 stages, up to date: one, group@x, group@y" in second.stderr + second.stdout

    (workspace / "params.yaml").write_text("a: 2\nnames: {x: {}, y: {}}\n", encoding="utf-8")
    (workspace / "broken-one").touch()
    third = run_flow(workspace)
    assert third.returncode == 2
    message = third.stderr[third.stderr.rindex("pipeline: ") :]
    assert "stage one failed (exit" in message
    assert "gfm: data/raw/thing.tif: cannot be read; replace it" in message


@pytest.mark.slow
def test_a_killed_flow_takes_the_training_with_it(
    workspace: Path, wait_for: Callable[..., str], alive: Callable[[int], bool]
) -> None:
    (workspace / "long-one").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(FLOW.parent)!r})\nfrom pathlib import Path\nimport stages\n"
        f"stages.reproduce.fn('one', {str(workspace)!r})"
    )
    environment = {**os.environ, "PREFECT_HOME": str(workspace / ".prefect")}
    flow = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    training = int(wait_for(lambda: (workspace / "pid").exists() and (workspace / "pid").read_text(encoding="utf-8")))
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert wait_for(lambda: not alive(training))


# A stage that records a run, in a workspace of real parameters.
RECORDING_STEP = """import pathlib, sys
from gfm.params import load
from gfm.tracking.runs import child_run, finish_pipeline
name = sys.argv[1]
params = load()
with child_run(params, name, "finetune", {}):
    if pathlib.Path("broken-" + name).exists():
        raise ValueError("out of memory")
pathlib.Path(name + ".txt").write_text(name)
if name == "y":
    finish_pipeline(params, metrics={"arp.gfm": 1.0})
"""


@pytest.fixture
def recording(workspace: Path) -> Path:
    root = FLOW.parents[1]
    (workspace / "step.py").write_text(RECORDING_STEP, encoding="utf-8")
    (workspace / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    stages = (
        (workspace / "dvc.yaml")
        .read_text(encoding="utf-8")
        .replace("params: [a]", "params: [seed]")
        .replace('"${names}"', "[x, y]")
    )
    (workspace / "dvc.yaml").write_text(stages, encoding="utf-8")
    return workspace


def recorded(folder: Path) -> list[tuple[str, str, str | None]]:
    """Name, status and parent of every run that is kept, in the order in which they began."""
    from gfm.tracking.store import import_mlflow

    client = import_mlflow().MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("gfm").experiment_id], order_by=["attributes.start_time"])
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    return [(run.info.run_name, run.info.status, parents[run.info.run_id] or run.info.run_id) for run in runs]


@pytest.mark.slow
def test_one_run_of_the_flow_is_one_tracking_run_with_the_status_of_the_flow(recording: Path) -> None:
    assert not os.environ.get("GFM_PIPELINE_RUN")
    first = run_flow(recording)
    assert first.returncode == 0, first.stderr
    runs = recorded(recording)
    whole = runs[0][2]
    assert runs == [(name, "FINISHED", whole) for name in ("pipeline", "one", "x", "y")]
    assert f"MLflow run {whole}" in first.stderr + first.stdout
    assert not (recording / ".gfm/pipeline.json").exists()

    second = run_flow(recording)  # nothing to do: no run is kept for it
    assert "nothing recorded in MLflow" in second.stderr + second.stdout
    assert recorded(recording) == runs

    (recording / "broken-x").touch()
    third = run_flow(recording, "--force")
    assert third.returncode == 2
    assert [run[:2] for run in recorded(recording)[4:]] == [
        ("pipeline", "FAILED"),
        ("one", "FINISHED"),
        ("x", "FAILED"),
        ("y", "FINISHED"),
    ]
    assert len({run[2] for run in recorded(recording)[4:]}) == 1
