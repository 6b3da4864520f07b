"""The scripts of the images as processes, on a real PostgreSQL, with authentication on; skipped where there is none."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "surveyor", "Kelp-forest-at-noon"
DATABASE_PASSWORDS = {"MLFLOW_DATABASE_PASSWORD": "mlflow-p'w 1", "PREFECT_DATABASE_PASSWORD": "prefect-pw-2"}
SUPERUSER_PASSWORD = "super-pw-3"
SECRET_KEY = "cookie-key-4"
STEP = """import pathlib
from gfm.params import load
from gfm.tracking.runs import child_run
with child_run(load(), "one", "finetune", {}) as run:
    run.metrics({"score": 0.5})
    run.artifact(pathlib.Path("step.py"))
pathlib.Path("one.txt").write_text("1")
"""
Wait = Callable[..., object]


@dataclass(frozen=True)
class Services:
    folder: Path
    mlflow: int
    prefect: int

    def status(self, port: int, path: str, credentials: str | None) -> int:
        headers = {"Content-Type": "application/json"}
        if credentials:
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b'{"max_results": 5}', headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def _programs() -> Path:
    """PostgreSQL's own programs; the test is skipped where they or the servers' drivers are missing."""
    known = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    known += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in known:
        if (folder / "initdb").exists():
            break
    else:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    lacking = [name for name in ("psycopg2", "flask_wtf") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: pip install -c constraints.txt -e '.[services]'")
    return folder


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """A fresh server with docker/postgres-init.sh behind it; gives its port."""
    programs, port = _programs(), _free_port()
    # It refuses to run as root.
    account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="gfm-pg-", dir="/tmp"))
    if account:
        shutil.chown(folder, "nobody", "nogroup")
    passwords = folder / "superuser"
    passwords.write_text(SUPERUSER_PASSWORD, encoding="utf-8")
    data = folder / "data"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        init = ["initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={passwords}", "-E", "UTF8"]
        start = ["pg_ctl", "-D", data, "-o", options, "-w", "-l", folder / "log", "start"]
        for program, *words in (init, start):
            subprocess.run([programs / program, *words], check=True, stdout=subprocess.DEVNULL, cwd="/", **account)
        environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": SUPERUSER_PASSWORD}
        script = ROOT / "docker/postgres-init.sh"
        subprocess.run([script], check=True, env={**os.environ, **environment, **DATABASE_PASSWORDS})
        yield port
    finally:
        stop = [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, cwd="/", **account)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def services(postgres: int, tmp_path_factory: pytest.TempPathFactory, wait_for: Wait) -> Iterator[Services]:
    found = Services(tmp_path_factory.mktemp("services"), _free_port(), _free_port())
    base = {
        **_plain(),
        "PREFECT_HOME": str(found.folder / "prefect"),
        "GFM_MLFLOW_PORT": str(found.mlflow),
        "GFM_PREFECT_PORT": str(found.prefect),
    }
    mlflow = {
        "MLFLOW_BACKEND_STORE_URI": f"postgresql://mlflow@127.0.0.1:{postgres}/mlflow",
        "MLFLOW_AUTH_DATABASE_URI": f"postgresql://mlflow@127.0.0.1:{postgres}/mlflow_auth",
        "PGPASSWORD": DATABASE_PASSWORDS["MLFLOW_DATABASE_PASSWORD"],
        "MLFLOW_ARTIFACTS_DESTINATION": str(found.folder / "mlartifacts"),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET_KEY,
        "TMPDIR": str(found.folder),
    }
    prefect = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://prefect@127.0.0.1:{postgres}/prefect",
        "PGPASSWORD": DATABASE_PASSWORDS["PREFECT_DATABASE_PASSWORD"],
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{PASSWORD}",
    }
    with ExitStack() as held:
        for name, settings in (("mlflow", mlflow), ("prefect", prefect)):
            log = held.enter_context((found.folder / f"{name}.log").open("w", encoding="utf-8"))
            process = subprocess.Popen(
                [ROOT / f"docker/{name}.sh"],
                cwd=found.folder,
                env={**base, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            held.callback(_end, process)
        wait_for(lambda: _up(found, found.mlflow, "/health", "mlflow"), 400)
        wait_for(lambda: _up(found, found.prefect, "/api/health", "prefect"), 400)
        yield found


@pytest.mark.slow
def test_both_servers_ask_for_credentials(services: Services) -> None:
    for port, path in (
        (services.mlflow, "/api/2.0/mlflow/experiments/search"),
        (services.prefect, "/api/work_pools/filter"),
    ):
        path_status = [services.status(port, path, who) for who in (None, f"{USER}:wrong", f"{USER}:{PASSWORD}")]
        assert path_status[:2] == [401, 401], path
    assert services.status(services.mlflow, "/api/2.0/mlflow/experiments/search", f"{USER}:{PASSWORD}") == 200


@pytest.mark.slow
def test_the_flow_tracks_with_credentials_of_the_environment_and_they_are_written_nowhere(
    services: Services, workspace: Path
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["tracking"] = {"uri": f"http://127.0.0.1:{services.mlflow}"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (workspace / "dvc.yaml").write_text(
        "stages: {one: {cmd: python step.py, params: [seed], outs: [one.txt]}}\n", encoding="utf-8"
    )
    (workspace / "step.py").write_text(STEP, encoding="utf-8")
    server = {
        "PREFECT_HOME": str(workspace / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{services.prefect}/api",
        "PREFECT_API_AUTH_STRING": f"{USER}:{PASSWORD}",
    }
    mlflow = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    refused = _flow(workspace, server)
    assert refused.returncode == 2
    assert not (workspace / "one.txt").exists()
    done = _flow(workspace, {**server, **mlflow})
    assert done.returncode == 0, done.stdout + done.stderr
    runs = _runs(services)
    assert sorted((run["info"]["run_name"], run["info"]["status"]) for run in runs) == [
        ("one", "FINISHED"),
        ("pipeline", "FINISHED"),
    ]
    written = [path for folder in (workspace, services.folder) for path in folder.rglob("*") if path.is_file()]
    texts = {str(path): path.read_bytes() for path in written} | {
        "output": (done.stdout + done.stderr + refused.stdout + refused.stderr).encode(),
        "runs": json.dumps(runs).encode(),
        "logs": json.dumps(_ask(services.prefect, "/api/logs/filter", {"limit": 200})).encode(),
    }
    for secret in (PASSWORD, SECRET_KEY, *DATABASE_PASSWORDS.values()):
        assert not [name for name, text in texts.items() if secret.encode() in text], secret


@pytest.mark.parametrize("script", ["mlflow.sh", "prefect.sh"])
def test_a_server_without_credentials_stays_on_loopback(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "docker" / script],
        env={**_plain(), "GFM_HOST": "0.0.0.0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "is open to others; set" in done.stderr


def _flow(workspace: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "flows/pipeline.py"), "--workspace", str(workspace)],
        env={**_plain(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def _runs(services: Services) -> list[dict[str, dict[str, str]]]:
    found = _ask(services.mlflow, "/api/2.0/mlflow/experiments/search", {"max_results": 20})
    ids = [entry["experiment_id"] for entry in found["experiments"]]
    answer = _ask(services.mlflow, "/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 20})
    runs: list[dict[str, dict[str, str]]] = answer["runs"]
    return runs


def _ask(port: int, path: str, body: object):  # type: ignore[no-untyped-def]
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _up(services: Services, port: int, path: str, name: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        text = (services.folder / f"{name}.log").read_text(encoding="utf-8")
        assert "Traceback" not in text, text[-3000:]
        return False


def _plain() -> dict[str, str]:
    """This environment, its commands first, without settings and credentials of the user."""
    foreign = ("PREFECT_", "GFM_", "MLFLOW_", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _end(process: subprocess.Popen[bytes]) -> None:
    leader = psutil.Process(process.pid)
    family = [leader, *leader.children(recursive=True)]
    process.terminate()
    psutil.wait_procs(family, timeout=20)
    for left in family:
        if left.is_running():
            left.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
