"""Open runs of dead processes are closed by the next run and by `gfm reap`; those of living ones are left alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gfm.params import Params
from gfm.tracking import owner as module
from gfm.tracking.flow_run import open_flow_run
from gfm.tracking.owner import Owner, owner, owner_tags
from gfm.tracking.reap import reap
from gfm.tracking.runs import child_run, finish_pipeline
from gfm.tracking.store import TrackingError, import_mlflow

CONFTEST = Path(__file__).resolve().parent


def recorded() -> dict[str, Any]:
    client = import_mlflow().MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    runs = client.search_runs([client.get_experiment_by_name("gfm").experiment_id])
    return {run.info.run_name: run for run in runs}


def statuses() -> dict[str, str]:
    return {name: run.info.status for name, run in recorded().items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def victim(folder: Path) -> Any:
    """A training in a process of its own, killed when the test wants it, and at its end."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(CONFTEST)!r})\nfrom conftest import smallest\n"
        "from gfm.tracking.runs import child_run\n"
        "with child_run(smallest(), 'victim', 'pretrain', {}): print('in', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_runs_of_a_killed_training_are_closed_and_of_a_living_one_left(
    victim: subprocess.Popen[str], params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reap(params) == []
    told = capsys.readouterr().out
    assert f"left open: victim ({recorded()['victim'].info.run_id}): its process lives (process {victim.pid})" in told
    assert "its stage victim is open" in told
    with pytest.raises(TrackingError, match=r"its process lives .* stop it first"):
        reap(params, [recorded()["victim"].info.run_id])
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert len(reap(params)) == 2
    assert statuses() == {"victim": "KILLED", "pipeline": "KILLED"}
    assert recorded()["victim"].data.tags["error"] == f"process {victim.pid} ended without closing its run"
    assert not Path(".gfm/pipeline.json").exists()
    capsys.readouterr()
    assert reap(params) == []
    assert capsys.readouterr().out == "gfm: no run is open\n"


def test_a_pipeline_whose_stages_ended_well_ends_as_they_did(folder: Path, params: Params) -> None:
    with child_run(params, "t/gfm", "finetune", {}) as run:
        run.metrics({"kwh": 0.5, "kg_co2eq": 0.1})
    assert statuses()["pipeline"] == "RUNNING"
    assert len(reap(params)) == 1
    assert statuses() == {"t/gfm": "FINISHED", "pipeline": "FINISHED"}
    assert recorded()["pipeline"].data.metrics == {"kwh": 0.5, "kg_co2eq": 0.1}
    assert finish_pipeline(params) is None


@pytest.mark.parametrize("between_stages", [True, False])
def test_a_pipeline_that_dvc_works_at_is_left(
    folder: Path, params: Params, capsys: pytest.CaptureFixture[str], between_stages: bool
) -> None:
    with child_run(params, "t/gfm", "finetune", {}):
        pass
    (folder / ".dvc/tmp").mkdir(parents=True)
    with (folder / ".dvc/tmp/lock").open("w") as lock:
        if between_stages:
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:  # a stage without a run of its own, as `gfm assemble`: DVC has noted what it writes
            here = {"pid": os.getpid(), "cmd": "dvc repro"}
            (folder / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {"data": here}, "read": {"raw": [here]}}))
        assert reap(params) == []
    assert f"dvc is at work in {folder}" in capsys.readouterr().out
    assert statuses()["pipeline"] == "RUNNING"


def test_a_run_of_another_machine_is_left_and_named_it_is_closed(
    folder: Path, params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = open_flow_run(params, owner=os.getpid())
    assert flow is not None
    with monkeypatch.context() as patch:
        patch.setattr(module.socket, "gethostname", lambda: "elsewhere")
        assert reap(params) == []
        assert f"of another machine or container; `gfm reap {flow}` closes it" in capsys.readouterr().out
        assert statuses() == {"pipeline": "RUNNING"}
        assert reap(params, [flow]) == [flow]
    assert statuses() == {"pipeline": "KILLED"}
    with pytest.raises(TrackingError, match=f"{flow}: no open run of gfm in the store"):
        reap(params, [flow])


def test_who_a_run_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = owner_tags()
    assert owner(mine) is Owner.ALIVE
    assert owner({**mine, "gfm.pid_started": "1 other-boot"}) is Owner.GONE
    assert owner({**mine, "gfm.host": "elsewhere"}) is Owner.ELSEWHERE
    assert owner({**mine, "gfm.pid_namespace": "pid:[1]"}) is Owner.ELSEWHERE
    assert owner({"gfm.host": mine["gfm.host"], "gfm.pid": mine["gfm.pid"]}) is Owner.UNKNOWN
    assert owner({}) is Owner.UNKNOWN


def test_a_dead_child_that_nobody_has_waited_for_is_gone() -> None:
    child = subprocess.Popen(["sleep", "60"])
    tags = owner_tags(child.pid)
    assert owner(tags) is Owner.ALIVE
    child.kill()
    while (Path("/proc") / str(child.pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert owner(tags) is Owner.GONE
    child.wait()
    assert owner(tags) is Owner.GONE


def test_setting_the_clock_does_not_make_a_living_process_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    tags = owner_tags()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 0.0)
    assert owner(tags) is Owner.ALIVE
