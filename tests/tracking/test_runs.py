"""Runs: nested, complete, and true also when a process is killed or several start at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gfm.params import Params
from gfm.tracking import runs as module
from gfm.tracking.carbon import Energy
from gfm.tracking.runs import child_run, finish_pipeline, flatten
from gfm.tracking.store import TrackingError

SOURCE = Path(__file__).resolve().parent


def python(folder: Path, code: str) -> subprocess.Popen[str]:
    """A process of its own, as a DVC stage is one."""
    head = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\nfrom conftest import smallest\nparams = smallest()\n"
    head += "from gfm.tracking.runs import child_run, finish_pipeline\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
    )


def recorded(folder: Path) -> list[Any]:
    from gfm.tracking.store import import_mlflow

    client = import_mlflow().MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name("gfm").experiment_id]))


def test_stages_nest_below_one_pipeline_run_with_their_settings_figures_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").write_text("<p>", encoding="utf-8")
    energy = Energy(0.25, 0.1, 9.0, "by the test", "estimated", "FRA", 0.4)
    with child_run(params, "gfm", "pretrain", {"masking": {"unit": 32}, "bands": ["R"]}, seed=7) as first:
        first.metrics({"loss": 2.0}, step=1)
        first.metrics({"loss": 1.0}, step=2)
        first.energy(energy)
        first.dataset("geopile", Path("data/geopile"), "abc.dir")
        first.image(tmp_path / "report.html", "picture")
    with child_run(params, "t-gfm", "finetune", {}):
        pass
    parent = finish_pipeline(params, artifacts=[tmp_path / "report.html"], metrics={"arp": 1.5})

    runs = {run.info.run_name: run for run in recorded(tmp_path)}
    assert set(runs) == {"pipeline", "gfm", "t-gfm"}
    child = runs["gfm"]
    assert child.data.tags["mlflow.parentRunId"] == runs["t-gfm"].data.tags["mlflow.parentRunId"] == parent
    assert child.info.status == "FINISHED"
    assert child.data.params == {"masking.unit": "32", "bands": '["R"]'}
    assert child.data.metrics == {"loss": 1.0, "kwh": 0.25, "kg_co2eq": 0.1}
    assert child.data.tags["energy.method"] == "by the test"
    assert child.data.tags["seed"] == "7"
    assert len(child.data.tags["git.commit"]) == 40
    assert [(data.dataset.name, data.dataset.digest) for data in child.inputs.dataset_inputs] == [
        ("geopile", "abc.dir")
    ]
    assert runs["pipeline"].info.status == "FINISHED"
    assert runs["pipeline"].data.metrics == {"arp": 1.5, "kwh": 0.25, "kg_co2eq": 0.1}
    assert runs["pipeline"].data.tags["energy.method"] == "sum of 1 runs; 1 runs were not measured"
    assert list(tmp_path.glob("mlruns/*/*/artifacts/report.html"))
    assert list(tmp_path.glob("mlruns/*/*/artifacts/images/picture.html"))

    with child_run(params, "later", "pretrain", {}):
        pass
    later = next(run for run in recorded(tmp_path) if run.info.run_name == "later")
    assert later.data.tags["mlflow.parentRunId"] != parent


def parents(folder: Path) -> dict[str, str | None]:
    """The pipeline run above each run."""
    return {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in recorded(folder)}


def test_a_failed_stage_ends_its_pipeline_and_the_next_run_starts_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with child_run(params, "good", "pretrain", {}) as run:
        run.energy(Energy(0.25, 0.1, 9.0, "by the test", "estimated", "FRA", 0.4))
    with pytest.raises(ValueError, match="no such"), child_run(params, "bad", "finetune", {}):
        raise ValueError("no such thing")
    assert not (tmp_path / ".gfm/pipeline.json").exists()
    runs = {run.info.run_name: run for run in recorded(tmp_path)}
    assert {name: run.info.status for name, run in runs.items()} == {
        "pipeline": "FAILED",
        "good": "FINISHED",
        "bad": "FAILED",
    }
    assert runs["bad"].data.tags["error"] == "ValueError: no such thing"
    assert runs["pipeline"].data.metrics == {"kwh": 0.25, "kg_co2eq": 0.1}
    assert finish_pipeline(params) is None  # nothing is open

    with child_run(params, "later", "pretrain", {}):
        pass
    above = parents(tmp_path)
    assert above["good"] == above["bad"] != above["later"]


def test_an_interrupted_stage_leaves_the_pipeline_open_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), child_run(params, "stopped", "pretrain", {}):
        raise KeyboardInterrupt
    with child_run(params, "next", "pretrain", {}):
        pass
    above = parents(tmp_path)
    assert above["stopped"] == above["next"]


def test_a_failed_stage_leaves_a_run_named_by_the_caller_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with child_run(params, "first", "pretrain", {}):
        pass
    parent = parents(tmp_path)["first"]
    monkeypatch.setenv("GFM_PIPELINE_RUN", str(parent))
    with pytest.raises(ValueError, match="no such"), child_run(params, "bad", "finetune", {}):
        raise ValueError("no such thing")
    assert next(run for run in recorded(tmp_path) if run.info.run_id == parent).info.status == "RUNNING"


def test_a_store_that_is_gone_when_a_stage_fails_does_not_hide_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def gone(*arguments: object) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setattr(module.pipeline_run, "children", gone)
    with pytest.raises(ValueError, match="no such"), child_run(params, "bad", "finetune", {}):
        raise ValueError("no such thing")
    assert "could not be closed as FAILED: connection refused" in capsys.readouterr().out
    assert not (tmp_path / ".gfm/pipeline.json").exists()


@pytest.mark.slow
def test_eight_stages_starting_at_once_on_a_fresh_store_share_one_pipeline_run(tmp_path: Path) -> None:
    code = "with child_run(params, sys.argv[0] or 'x', 'finetune', {'a': 1}) as run: run.metrics({'loss': 1.0}, step=1)"
    processes = [python(tmp_path, code) for _ in range(8)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert outputs == [""] * 8  # no migration chatter, no addresses
    runs = recorded(tmp_path)
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 8 + ["RUNNING"]
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags}) == 1


@pytest.mark.slow
def test_a_killed_stage_is_closed_as_killed_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import time\nwith child_run(params, 'victim', 'pretrain', {}):\n    print('in', flush=True); time.sleep(60)"
    victim = python(tmp_path, code)
    assert victim.stdout is not None and victim.stdout.readline() == "in\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()

    monkeypatch.chdir(tmp_path)
    with child_run(params, "next", "pretrain", {}):
        status = {run.info.run_name: run.info.status for run in recorded(tmp_path)}
    assert status == {"pipeline": "RUNNING", "victim": "KILLED", "next": "RUNNING"}
    assert "victim" in capsys.readouterr().out


def test_a_run_named_by_the_caller_becomes_the_parent_and_an_unknown_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with child_run(params, "first", "pretrain", {}) as first:
        pass
    monkeypatch.setenv("GFM_PIPELINE_RUN", str(first.run_id))
    with child_run(params, "second", "pretrain", {}):
        pass
    second = next(run for run in recorded(tmp_path) if run.info.run_name == "second")
    assert second.data.tags["mlflow.parentRunId"] == first.run_id
    monkeypatch.setenv("GFM_PIPELINE_RUN", "0" * 32)
    with pytest.raises(TrackingError, match="GFM_PIPELINE_RUN = 0000"), child_run(params, "x", "y", {}):
        pass


def test_tracking_none_records_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_said", set())  # it is said once a process, and another test may have been first
    for _ in range(2):
        with child_run(untracked, "gfm", "pretrain", {}) as run:
            run.metrics({"loss": 1.0}, step=1)
            run.artifact(tmp_path)
            assert run.run_id is None
    assert finish_pipeline(untracked) is None
    assert capsys.readouterr().out.count("runs are not recorded") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_follower_process_of_a_distributed_training_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with child_run(params, "gfm", "pretrain", {}) as run:
        assert run.run_id is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:9", "no tracking server answers"),
        ("sqlite:///not/there/mlflow.db", "no folder not/there"),
        ("sqlite:///text.db", "not a usable SQLite file"),
    ],
)
def test_an_unusable_store_stops_the_stage_at_its_start_with_the_key_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, uri: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("this is no database " * 50, encoding="utf-8")
    params = params.model_copy(update={"tracking": params.tracking.model_copy(update={"uri": uri})})
    with pytest.raises(TrackingError, match=words) as caught, child_run(params, "gfm", "pretrain", {}):
        pass
    assert str(caught.value).startswith(f"tracking.uri = {uri}: ")
    assert "\n" not in str(caught.value)


def test_a_store_that_goes_away_does_not_stop_the_training_and_gets_the_figures_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    from gfm.tracking.runs import RecordedRun

    with child_run(params, "gfm", "pretrain", {}) as run:
        assert isinstance(run, RecordedRun)
        real = run.client

        class Gone:
            def log_batch(self, *args: object, **kwargs: object) -> None:
                raise ConnectionError("connection refused")

        run.client = Gone()
        run.metrics({"loss": 3.0}, step=1)
        run.client = real
        run.metrics({"kept": 1.0})
        run._unsent[0] = lambda: real.log_metric(run.run_id, "loss", 3.0, step=1)
    assert "does not answer" in capsys.readouterr().out
    child = next(run for run in recorded(tmp_path) if run.info.run_name == "gfm")
    assert child.data.metrics == {"loss": 3.0, "kept": 1.0}
    assert child.info.status == "FINISHED"


def test_nested_settings_become_dotted_keys() -> None:
    assert dict(flatten({"a": {"b": {"c": 1}}, "d": [1, 2], "e": {}})) == {"a.b.c": 1, "d": [1, 2], "e": {}}
