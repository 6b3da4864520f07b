"""A real tracking server goes away while a training runs: the training goes on, its figures come later."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gfm.tracking.store import import_mlflow

CONFTEST = Path(__file__).resolve().parent
PASSWORD = "hunter2-S3cret"
PATIENCE_S = 120
# Waits for a line on stdin before each step, so that the test decides what happens when.
TRAINING = f"""
import sys
sys.path.insert(0, {str(CONFTEST)!r})
from conftest import smallest
from gfm.tracking import runs
runs.RETRY_AFTER_S = 0.0
with runs.child_run(smallest(tracking={{"uri": sys.argv[1]}}), "gfm", "pretrain", {{"uri": sys.argv[2]}}) as run:
    for step, _ in enumerate(sys.stdin, 1):
        run.metrics({{"loss": 1.0 / step}}, step=step)
        print("step", step, flush=True)
"""

pytestmark = pytest.mark.slow


class Server:
    """`mlflow server` over one SQLite file, at one port, up or down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = ["--workers", "1", "--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "files"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *store], cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **quiet}
            )
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)

    def down(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.up()
    yield made
    made.down()


@pytest.fixture
def training(tmp_path: Path, server: Server) -> Iterator[subprocess.Popen[str]]:
    uri = f"http://127.0.0.1:{server.port}"
    with_password = f"http://ann:{PASSWORD}@127.0.0.1:{server.port}"  # as a setting, which is recorded
    folder = tmp_path / "work"
    folder.mkdir()
    retries = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, uri, with_password],
        cwd=folder,
        env={**os.environ, **retries},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def stepper(training: subprocess.Popen[str]) -> Callable[[], str]:
    """One more step; gives what was said until it was done."""

    def step() -> str:
        assert training.stdin is not None and training.stdout is not None
        training.stdin.write("\n")
        training.stdin.flush()
        said = ""
        for line in training.stdout:
            said += line
            if line.startswith("step"):
                return said
        raise AssertionError(said)

    return step


def test_a_training_outlives_its_server_and_its_figures_arrive_or_are_missed(
    tmp_path: Path, server: Server, training: subprocess.Popen[str]
) -> None:
    step = stepper(training)
    said = step()
    server.down()
    away = step() + step()
    assert away.count("the tracking store does not answer, will try again") == 1
    server.up()
    step()
    client = import_mlflow().MlflowClient(f"http://127.0.0.1:{server.port}")
    (run,) = [run for run in client.search_runs(["1"]) if run.info.run_name == "gfm"]
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [entry.step for entry in sorted(history, key=lambda entry: entry.step)] == [1, 2, 3, 4]
    recorded = _everything(run)
    server.down()
    away += step()
    last, _ = training.communicate(timeout=PATIENCE_S)
    assert training.returncode == 0  # the training itself ends well
    assert re.search(r"run \w+: 2 records were not taken; run\.json and history\.csv hold the numbers", last), last
    for where, text in {"log": said + away + last, "run": recorded, "files": _files(tmp_path / "work")}.items():
        assert PASSWORD not in text and "ann:" not in text, where


def _everything(run: Any) -> str:
    return f"{run.data.tags} {run.data.params} {run.data.metrics} {run.info}"


def _files(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
