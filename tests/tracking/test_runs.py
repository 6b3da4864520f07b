"""Runs: nested, complete, and true also when a process is killed or several start at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gfm.errors import GfmError
from gfm.params import Params
from gfm.tracking import pipeline_run
from gfm.tracking import runs as module
from gfm.tracking.carbon import Energy
from gfm.tracking.flow_run import close_flow_run, open_flow_run
from gfm.tracking.runs import child_run, finish_pipeline, flatten, pipeline_fails_with
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


@pytest.mark.parametrize("content", [b"[1]", b'{"run": "', b"\xff", b"null"])
def test_a_note_of_the_pipeline_that_cannot_be_read_begins_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gfm").mkdir()
    (tmp_path / ".gfm/pipeline.json").write_bytes(content)
    with child_run(params, "good", "pretrain", {}):
        pass
    assert sorted(run.info.run_name for run in recorded(tmp_path)) == ["good", "pipeline"]


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

    monkeypatch.setattr(pipeline_run, "children", gone)
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


def by_id(folder: Path, run_id: str | None) -> Any:
    return next(run for run in recorded(folder) if run.info.run_id == run_id)


@pytest.mark.parametrize(("error", "status"), [(ValueError("disk full"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_resumed_training_goes_on_in_the_run_that_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, error: BaseException, status: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(type(error)), child_run(params, "gfm", "pretrain", {"workers": 4}, seed=1) as run:
        run.metrics({"loss": 3.0}, step=1)
        raise error
    first = by_id(tmp_path, run.run_id)
    assert first.info.status == status
    with child_run(params, "gfm", "pretrain", {"workers": 2}, seed=1, resume_run_id=run.run_id) as again:
        assert again.run_id == run.run_id
        assert by_id(tmp_path, run.run_id).info.status == "RUNNING"
        again.metrics({"loss": 2.0}, step=2)
    resumed = by_id(tmp_path, run.run_id)
    assert resumed.info.status == "FINISHED" and resumed.info.end_time >= first.info.end_time
    assert resumed.data.params == {"workers": "4"}
    assert "error" not in resumed.data.tags
    assert resumed.data.tags["gfm.resumes"] == "1"
    assert resumed.data.tags["gfm.resume.1"] == f"was {status} ({type(error).__name__}: {error})"
    # A failure closed the pipeline, so the resumed run hangs below the new one, whose energy it is part of.
    above = by_id(tmp_path, resumed.data.tags["mlflow.parentRunId"])
    assert above.info.status == "RUNNING"
    assert len(recorded(tmp_path)) == (3 if status == "FAILED" else 2)


@pytest.mark.slow
def test_a_run_killed_hard_is_resumed_by_another_process_and_not_closed_as_an_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import time\nwith child_run(params, 'gfm', 'pretrain', {}) as run:\n"
    victim = python(tmp_path, code + "    print(run.run_id, flush=True); time.sleep(60)")
    assert victim.stdout is not None
    run_id = victim.stdout.readline().strip()
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(TrackingError, match=f"process {victim.pid} still records the run {run_id}"),
        child_run(params, "gfm", "pretrain", {}, resume_run_id=run_id),
    ):
        pass
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    with child_run(params, "gfm", "pretrain", {}, resume_run_id=run_id) as again:
        assert again.run_id == run_id
        with child_run(params, "beside", "finetune", {}):  # looks for orphans
            assert by_id(tmp_path, run_id).info.status == "RUNNING"
    assert by_id(tmp_path, run_id).info.status == "FINISHED"
    assert "process that was killed" in capsys.readouterr().out


def test_an_orphan_that_was_reopened_since_the_search_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with child_run(params, "gfm", "pretrain", {}) as run:
        assert isinstance(run, module.RecordedRun)
        stale = run.client.get_run(run.run_id)
        stale.data.tags["gfm.pid_started"] = "0.0"

        class Searched:
            """Another folder's process: what it found is out of date."""

            def __getattr__(self, name: str) -> Any:
                assert isinstance(run, module.RecordedRun)
                return (lambda *a, **k: [stale]) if name == "search_runs" else getattr(run.client, name)

        assert pipeline_run.close_orphans(Searched(), stale.info.experiment_id) == []
        assert by_id(tmp_path, run.run_id).info.status == "RUNNING"


def test_a_run_of_another_stage_or_experiment_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError), child_run(params, "gfm", "pretrain", {}) as run:
        raise ValueError
    for name, kind in (("other", "pretrain"), ("gfm", "finetune")):
        with (
            pytest.raises(TrackingError, match="is one of pretrain gfm; remove the checkpoint"),
            child_run(params, name, kind, {}, resume_run_id=run.run_id),
        ):
            pass
    elsewhere = params.model_copy(update={"tracking": params.tracking.model_copy(update={"experiment": "b"})})
    with (
        pytest.raises(TrackingError, match=r"set tracking\.experiment back"),
        child_run(elsewhere, "gfm", "pretrain", {}, resume_run_id=run.run_id),
    ):
        pass
    assert by_id(tmp_path, run.run_id).info.status == "FAILED"


def test_where_the_run_is_gone_or_finished_a_new_one_begins_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with child_run(params, "gfm", "pretrain", {}, resume_run_id="0" * 32) as run:
        assert run.run_id not in (None, "0" * 32)
    assert "no longer in the tracking store: a new run begins" in capsys.readouterr().out
    with child_run(params, "gfm", "pretrain", {}, resume_run_id=run.run_id) as later:
        assert later.run_id != run.run_id
    assert "is finished: a new run begins" in capsys.readouterr().out


def test_the_error_of_a_stage_without_a_run_closes_the_pipelines_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="before any run"), pipeline_fails_with(params):
        raise ValueError("before any run")
    assert not (tmp_path / "mlflow.db").exists()
    with child_run(params, "gfm", "pretrain", {}):
        pass
    with pytest.raises(KeyboardInterrupt), pipeline_fails_with(params):
        raise KeyboardInterrupt
    parent = parents(tmp_path)["gfm"]
    assert by_id(tmp_path, parent).info.status == "RUNNING"
    with pytest.raises(ValueError, match="no scores"), pipeline_fails_with(params):
        raise ValueError("no scores")
    assert by_id(tmp_path, parent).info.status == "FAILED"
    assert by_id(tmp_path, parent).data.tags["error"] == "ValueError: no scores"
    assert finish_pipeline(params) is None


def test_results_of_trainings_that_were_up_to_date_get_a_run_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").write_text("<p>", encoding="utf-8")
    parent = finish_pipeline(params, [tmp_path / "report.html"], {"arp": 1.5}, {"validation": "passed"})
    (run,) = recorded(tmp_path)
    assert (run.info.run_id, run.info.status) == (parent, "FINISHED")
    assert run.data.tags["validation"] == "passed" and run.data.tags["gfm.kind"] == "pipeline"
    assert not (tmp_path / ".gfm/pipeline.json").exists()


def test_results_recorded_on_a_run_named_by_the_caller_leave_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    run_id = open_flow_run(params)
    assert run_id is not None
    monkeypatch.setenv("GFM_PIPELINE_RUN", run_id)
    with child_run(params, "gfm", "pretrain", {}) as run:
        run.energy(Energy(0.25, 0.1, 9.0, "by the test", "estimated", "FRA", 0.4))
    assert finish_pipeline(params, metrics={"arp": 1.5}) == run_id
    assert by_id(tmp_path, run_id).info.status == "RUNNING"
    assert close_flow_run(params, run_id, "FAILED", "stage x failed")
    above = by_id(tmp_path, run_id)
    assert above.info.status == "FAILED" and above.data.tags["error"] == "stage x failed"
    assert above.data.metrics == {"arp": 1.5, "kwh": 0.25, "kg_co2eq": 0.1}
    assert not (tmp_path / ".gfm/pipeline.json").exists()


def test_a_flow_in_which_nothing_was_recorded_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    run_id = open_flow_run(params)
    assert run_id is not None
    assert not close_flow_run(params, run_id, "FINISHED")
    assert recorded(tmp_path) == []
    with pytest.raises(TrackingError, match="no such run"):
        close_flow_run(params, "0" * 32, "FINISHED")
    with pytest.raises(GfmError, match="DONE: a run ends FINISHED, FAILED or KILLED"):
        close_flow_run(params, run_id, "DONE")


def test_the_run_of_a_killed_flow_is_closed_by_the_next_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    flow = subprocess.Popen(["sleep", "60"])
    run_id = open_flow_run(params, owner=flow.pid)
    with child_run(params, "a", "pretrain", {}):
        assert by_id(tmp_path, run_id).info.status == "RUNNING"
    flow.kill()
    flow.wait()
    with child_run(params, "b", "pretrain", {}):
        assert by_id(tmp_path, run_id).info.status == "KILLED"


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
        ("sqlite:///other.db", "another version of MLflow made this database"),
    ],
)
def test_an_unusable_store_stops_the_stage_at_its_start_with_the_key_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, uri: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("this is no database " * 50, encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.executescript(
            "create table experiments(a); create table alembic_version(version_num);"
            "insert into alembic_version values('deadbeef')"
        )
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
