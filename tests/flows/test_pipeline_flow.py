"""The flow runs a workspace's stages through DVC, says what it skipped and why it failed, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FLOW = Path(__file__).resolve().parents[2] / "flows" / "pipeline.py"
STAGES = """stages:
  one: {cmd: python step.py one, params: [a], outs: [one.txt]}
  group:
    matrix: {n: "${names}"}
    cmd: python step.py ${item.n}
    deps: [one.txt]
    outs: ["${item.n}.txt"]
"""
STEP = """import os, pathlib, sys, time
name = sys.argv[1]
print("step", name)
if pathlib.Path("broken-" + name).exists():
    sys.exit("gfm: data/raw/thing.tif: cannot be read; replace it")
if pathlib.Path("long-" + name).exists():
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(100)
pathlib.Path(name + ".txt").write_text(name)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (folder / "params.yaml").write_text("a: 1\nnames: {x: {}, y: {}}\n", encoding="utf-8")
    (folder / "step.py").write_text(STEP, encoding="utf-8")
    dvc(folder, "init", "--no-scm", "-q")
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


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


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The flow's functions without a Prefect run around them."""
    import importlib.util

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.syspath_prepend(str(FLOW.parent))
    spec = importlib.util.spec_from_file_location("pipeline_flow", FLOW)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pipeline_flow", loaded)
    spec.loader.exec_module(loaded)
    return loaded


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


def test_a_groups_name_means_all_its_stages_in_the_order_of_the_file(workspace: Path, module) -> None:  # type: ignore[no-untyped-def]
    assert module.choose_stages(workspace, None) == ["one", "group@x", "group@y"]
    assert module.choose_stages(workspace, ["group"]) == ["group@x", "group@y"]
    assert module.choose_stages(workspace, ["group@y", "one"]) == ["one", "group@y"]
    with pytest.raises(module.PipelineError, match="no stage two in"):
        module.choose_stages(workspace, ["two"])


def test_a_stage_reports_whether_it_ran(workspace: Path, module) -> None:  # type: ignore[no-untyped-def]
    assert module.reproduce.fn("one", str(workspace), False).state == "ran"
    assert module.reproduce.fn("one", str(workspace), False).state == "up to date"
    assert module.reproduce.fn("one", str(workspace), True).state == "ran"


def test_changed_raw_data_stop_the_flow_until_they_are_accepted(workspace: Path, module) -> None:  # type: ignore[no-untyped-def]
    raw = workspace / "data/raw"
    raw.mkdir(parents=True)
    (raw / "a.tif").write_bytes(b"1")
    (workspace / "data.dvc").write_text("outs: [{path: data/raw}]\n", encoding="utf-8")
    dvc(workspace, "commit", "-f", "data.dvc")
    module.check_raw_data(workspace, False)
    (raw / "b.tif").write_bytes(b"2")
    with pytest.raises(module.PipelineError, match="differ from data"):
        module.check_raw_data(workspace, False)
    module.check_raw_data(workspace, True)
    module.check_raw_data(workspace, False)


def test_a_second_flow_in_a_workspace_is_refused(workspace: Path, module) -> None:  # type: ignore[no-untyped-def]
    with (
        module.only_flow_in(workspace),
        pytest.raises(module.PipelineError, match="another run of the pipeline is at work"),
        module.only_flow_in(workspace),
    ):
        pass


class Stages:
    """Stands for the DVC task: every stage runs, but for the one that fails."""

    def __init__(self, module, failing: str | None) -> None:  # type: ignore[no-untyped-def]
        self.module, self.failing = module, failing

    def with_options(self, **options: str):  # type: ignore[no-untyped-def]
        return self

    def __call__(self, stage: str, workspace: str, force: bool, run_id: str | None):  # type: ignore[no-untyped-def]
        if stage == self.failing:
            raise self.module.PipelineError(f"stage {stage} failed")
        return self.module.Outcome(stage, "up to date", 0.0)


@pytest.mark.parametrize(
    ("chosen", "failing", "left"),
    [
        (["index", "evaluate"], None, ["stages", "results"]),
        (["index", "evaluate"], "index", ["stages"]),
        (["index", "evaluate"], "evaluate", ["stages"]),
        (["index"], None, ["stages"]),
    ],
)
def test_the_results_table_is_left_only_where_this_run_brought_it_up_to_date(  # type: ignore[no-untyped-def]
    workspace: Path,
    module,
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[str],
    failing: str | None,
    left: list[str],
) -> None:
    (workspace / "reports").mkdir()
    (workspace / "reports/results.csv").write_text("model,score\ngfm,1\n", encoding="utf-8")
    found: list[str] = []
    monkeypatch.setattr(module, "get_run_logger", lambda: module.logging.getLogger("test"))
    monkeypatch.setattr(module, "choose_stages", lambda folder, stages: chosen)
    monkeypatch.setattr(module, "gfm", lambda folder, *words: None)
    monkeypatch.setattr(module, "reproduce", Stages(module, failing))
    monkeypatch.setattr(module, "results_markdown", lambda folder: "| gfm | 1 |")
    for kind in ("table", "markdown"):
        monkeypatch.setattr(module, f"create_{kind}_artifact", lambda key, **content: found.append(key))
    try:
        module.pipeline.fn(None, str(workspace))
    except module.PipelineError:
        assert failing is not None
    assert found == left


def test_an_artifact_that_cannot_be_left_does_not_hide_which_stage_failed(  # type: ignore[no-untyped-def]
    workspace: Path, module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object) -> None:
        raise RuntimeError("no server")

    monkeypatch.setattr(module, "choose_stages", lambda folder, stages: ["index"])
    monkeypatch.setattr(module, "gfm", lambda folder, *words: None)
    monkeypatch.setattr(module, "reproduce", Stages(module, "index"))
    monkeypatch.setattr(module, "publish", refused)
    with pytest.raises(module.PipelineError, match="stage index failed"):
        module.pipeline.fn(None, str(workspace))
    assert "could not be left" in caplog.text and "no server" in caplog.text


@pytest.mark.slow
def test_a_killed_flow_takes_the_training_with_it(workspace: Path) -> None:
    (workspace / "long-one").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(FLOW.parent)!r})\nfrom pathlib import Path\nimport pipeline\n"
        f"pipeline.reproduce.fn('one', {str(workspace)!r}, False)"
    )
    environment = {**os.environ, "PREFECT_HOME": str(workspace / ".prefect")}
    flow = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    training = int(wait_for(lambda: (workspace / "pid").exists() and (workspace / "pid").read_text(encoding="utf-8")))
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert wait_for(lambda: not alive(training))


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition):  # type: ignore[no-untyped-def]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


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
    stages = STAGES.replace("params: [a]", "params: [seed]").replace('"${names}"', "[x, y]")
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
    ]
    assert len({run[2] for run in recorded(recording)[4:]}) == 1


def test_a_run_that_the_caller_opened_is_used_and_left_to_the_caller(  # type: ignore[no-untyped-def]
    workspace: Path, module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GFM_PIPELINE_RUN", "abc")
    monkeypatch.setattr(module, "gfm", lambda *words: pytest.fail("opened or closed a run of its own"))
    assert module.open_run(workspace) == "abc"
    assert module.close_run(workspace, "abc", "FINISHED") == "abc"


def test_without_a_tracking_run_the_flow_goes_on_and_its_log_says_why(  # type: ignore[no-untyped-def]
    workspace: Path, module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = subprocess.CompletedProcess([], 2, "", "gfm: tracking.uri = http://x: no tracking server answers")
    monkeypatch.setattr(module, "gfm", lambda *words: refused)
    assert module.open_run(workspace) is None
    assert "no tracking server answers" in caplog.text
    assert "GFM_PIPELINE_RUN" not in module.environment(None)
