"""Against a real server and worker, as `make up` starts them: schedules, cancelling, artifacts, nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = """stages:
  finetune:
    matrix: {task: [x, y]}
    cmd: python step.py ${item.task}
    outs: ["${item.task}.txt"]
  evaluate: {cmd: python step.py z, deps: [x.txt, y.txt], outs: [z.txt]}
"""
FINISHED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Wait = Callable[..., Any]


class Server:
    """What `make up` started, and Prefect's API of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mlflow, self.prefect = _free_port(), _free_port()
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PREFECT_", "GFM_", "MLFLOW_"))
            },
            "GFM_SERVICES": str(folder / "services"),
            "GFM_MLFLOW_PORT": str(self.mlflow),
            "GFM_PREFECT_PORT": str(self.prefect),
            "GFM_WORKER_SLOTS": "2",
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "mlartifacts"),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def make(self, action: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "flows" / "services.py"), action],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.prefect}/api{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        for _ in range(30):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503:  # SQLite is locked: ask again
                    raise
            time.sleep(1)
        raise AssertionError(f"{path}: the server stays busy")

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/deployments/name/{name}")
        return found

    def processes(self) -> list[psutil.Process]:
        """The leaders that it noted, with all below them."""
        noted = json.loads((self.folder / "services/running.json").read_text(encoding="utf-8"))
        leaders = [psutil.Process(entry["pid"]) for entry in noted]
        return [process for leader in leaders for process in (leader, *leader.children(recursive=True))]

    def logs(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8") for path in (self.folder / "services").glob("*.log"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    started = server.make("up")
    assert started.returncode == 0, started.stderr + server.logs()
    assert f"http://127.0.0.1:{server.prefect}" in started.stdout
    yield server
    processes = server.processes()
    assert server.make("down").returncode == 0
    assert not [process for process in processes if process.is_running()]


@pytest.mark.slow
def test_make_up_registers_the_deployments_and_says_when_it_runs_already(server: Server) -> None:
    found = {entry["name"]: entry for entry in server.call("POST", "/deployments/filter", {})}
    assert sorted(found) == ["data", "encoders", "gate", "nightly", "scores"]
    assert not any(schedule["active"] for entry in found.values() for schedule in entry["schedules"])
    at_once = found["scores"]["parameter_openapi_schema"]["properties"]["at_once"]
    assert at_once["anyOf"][0] == {"minimum": 1, "type": "integer"}
    assert "one a GPU" in at_once["description"]

    again = server.make("up")
    assert again.returncode == 2
    assert "running already" in again.stderr
    beside = server.make("up", GFM_SERVICES=str(server.folder / "others"))
    assert beside.returncode == 2
    assert f"port {server.mlflow} is taken by another program; set GFM_MLFLOW_PORT" in beside.stderr
    assert len(server.call("POST", "/deployments/filter", {})) == 5  # the first ones still run


@pytest.mark.slow
def test_a_schedule_makes_a_run_that_finishes_and_a_cancelled_run_leaves_no_process(
    server: Server, workspace: Path, wait_for: Wait, tmp_path: Path
) -> None:
    nightly = server.deployment("pipeline/nightly")["id"]
    server.call("PATCH", f"/deployments/{nightly}", {"parameters": {"workspace": str(workspace)}})
    every_minute = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    server.call("POST", f"/deployments/{nightly}/schedules", [every_minute])

    long = _long_workspace(tmp_path / "long")
    scores = server.deployment("benchmark/scores")["id"]
    parameters = {"workspace": str(long), "at_once": 2}
    cancelled = server.call("POST", f"/deployments/{scores}/create_flow_run", {"parameters": parameters})["id"]
    wait_for(lambda: len(list(long.glob("*.pid"))) == 2, 300)  # side by side
    stages = [psutil.Process(int(path.read_text(encoding="utf-8"))) for path in long.glob("*.pid")]
    above = [process for stage in stages for process in stage.parents() if "dvc" in process.cmdline()]
    assert above
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    server.call("POST", f"/flow_runs/{cancelled}/set_state", state)
    wait_for(lambda: server.call("GET", f"/flow_runs/{cancelled}")["state_type"] in FINISHED, 300)
    assert server.call("GET", f"/flow_runs/{cancelled}")["state_type"] == "CANCELLED"
    wait_for(lambda: not [process for process in (*stages, *above) if process.is_running()], 60)
    assert not (long / "z.txt").exists()

    of_schedule = {"flow_runs": {"deployment_id": {"any_": [nightly]}, "state": {"type": {"any_": list(FINISHED)}}}}
    run = wait_for(lambda: server.call("POST", "/flow_runs/filter", of_schedule), 300)[0]
    assert (run["state_type"], run["auto_scheduled"]) == ("COMPLETED", True)
    assert (workspace / "y.txt").exists()
    artifacts = server.call("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    (table,) = [artifact for artifact in artifacts if artifact["key"] == "stages"]
    assert [row["stage"] for row in json.loads(table["data"])] == ["one", "group@x", "group@y"]


@pytest.mark.slow
def test_a_failed_run_ends_in_a_state_with_the_reason_and_calls_the_alert(
    server: Server, workspace: Path, wait_for: Wait
) -> None:
    raw = workspace / "data/raw"
    raw.mkdir(parents=True)
    (raw / "a.tif").write_bytes(b"1")
    (workspace / "data.dvc").write_text("outs: [{path: data/raw}]\n", encoding="utf-8")
    stages = ", ".join(f"{name}: {{cmd: 'true'}}" for name in ("assemble", "index", "split", "validate", "describe"))
    (workspace / "dvc.yaml").write_text(f"stages: {{{stages}}}", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "data.dvc"], cwd=workspace, check=True)
    (raw / "a.tif").unlink()
    (raw / "a.tif").write_bytes(b"2")
    data = server.deployment("refresh/data")["id"]
    body = {
        "parameters": {"workspace": str(workspace)},
        "job_variables": {"env": {"GFM_ALERT_COMMAND": "tee alert.json"}},
    }
    body["job_variables"]["env"]["GFM_ALERT_COMMAND"] = f"tee {workspace / 'alert.json'}"
    run = server.call("POST", f"/deployments/{data}/create_flow_run", body)["id"]
    wait_for(lambda: server.call("GET", f"/flow_runs/{run}")["state_type"] in FINISHED, 300)
    state = server.call("GET", f"/flow_runs/{run}")["state"]
    assert (state["type"], state["name"]) == ("FAILED", "RawDataChanged")
    assert "differ from data.dvc" in state["message"]
    told = json.loads(wait_for(lambda: (workspace / "alert.json").exists() and (workspace / "alert.json").read_text()))
    assert (told["flow"], told["state"]) == ("refresh", "RawDataChanged")


def _long_workspace(folder: Path) -> Path:
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (folder / "step.py").write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1] + '.new').write_text(str(os.getpid()))\n"
        "os.replace(sys.argv[1] + '.new', sys.argv[1] + '.pid')\n"
        "time.sleep(1000)\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
