"""`make up` refuses what would be unsafe or in the way, and `make down` ends what it started and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SERVICES = Path(__file__).resolve().parents[2] / "flows" / "services.py"


def services(folder: Path, action: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GFM_", "PREFECT_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, str(SERVICES), action],
        env={**kept, "GFM_SERVICES": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"GFM_HOST": "0.0.0.0"}, "GFM_HOST = 0.0.0.0 is open to others: set MLFLOW_AUTH_ADMIN_USERNAME, "),
        ({"GFM_MLFLOW_PORT": "http"}, "GFM_MLFLOW_PORT = http: give a whole number above zero"),
        ({"GFM_WORKER_SLOTS": "0"}, "GFM_WORKER_SLOTS = 0: give a whole number above zero"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    done = services(tmp_path, "up", **variables)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "running.json").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = services(tmp_path, "up", GFM_MLFLOW_PORT=str(port))
        assert f"port {port} is taken by another program; set GFM_MLFLOW_PORT to a free one" in done.stderr


def test_down_ends_the_process_it_noted_and_spares_another_of_the_same_number(tmp_path: Path) -> None:
    ours, foreign = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) for _ in range(2))
    try:
        noted = [
            {"name": "mlflow", "pid": ours.pid, "started": psutil.Process(ours.pid).create_time()},
            {"name": "prefect", "pid": foreign.pid, "started": psutil.Process(foreign.pid).create_time() - 1000},
        ]
        (tmp_path / "running.json").write_text(json.dumps(noted), encoding="utf-8")
        assert services(tmp_path, "down").stdout == "ended: mlflow\n"
        assert ours.wait(10) != 0
        assert foreign.poll() is None
        assert services(tmp_path, "down").stdout == "nothing was running\n"
    finally:
        for process in (ours, foreign):
            process.kill()
            process.wait()


def test_a_broken_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text("{", encoding="utf-8")
    done = services(tmp_path, "down")
    assert done.returncode == 2
    assert "running.json: cannot be read; end the services by hand and remove it" in done.stderr
