"""MLflow, a Prefect server and one worker on this machine, as processes: `python flows/services.py up`, and `down`.

The same scripts run in the images of docker/. Settings come from the environment, see docs/operations.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from gpus import gpus

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "docker"
POOL = "gfm"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_S = 300.0  # the first start makes the databases
BUSY_S = 60.0
STOP_S = 45.0  # a worker ends its runs first
LAST_LINES = 5  # of a service's log, where it did not start


class ServiceError(Exception):
    """Services that cannot be started or stopped; names the service and the fix."""


@dataclass(frozen=True)
class Service:
    """A started process; `started` tells it from a later one of the same number."""

    name: str
    pid: int
    started: float


@dataclass(frozen=True)
class Settings:
    """Where the services listen and keep their files."""

    host: str
    mlflow_port: int
    prefect_port: int
    state: Path
    slots: int  # runs that the worker does at once
    gpus: int  # places of the limit `gpu`

    @classmethod
    def read(cls) -> Settings:
        """Of the environment; ServiceError for a value that is no number."""
        return cls(
            host=os.environ.get("GFM_HOST", LOOPBACK[0]),
            mlflow_port=_number("GFM_MLFLOW_PORT", 5000),
            prefect_port=_number("GFM_PREFECT_PORT", 4200),
            state=Path(os.environ.get("GFM_SERVICES", ROOT / ".gfm/services")).resolve(),
            slots=_number("GFM_WORKER_SLOTS", 1),
            gpus=_number("GFM_GPUS", len(gpus()) or 1),
        )

    @property
    def mlflow(self) -> str:
        return f"http://{self._reached}:{self.mlflow_port}"

    @property
    def prefect(self) -> str:
        return f"http://{self._reached}:{self.prefect_port}"

    @property
    def _reached(self) -> str:
        """From this machine."""
        host = LOOPBACK[0] if self.host == "0.0.0.0" else self.host
        return f"[{host}]" if ":" in host else host


# What the servers ask for beyond loopback.
CREDENTIALS = (
    "MLFLOW_AUTH_ADMIN_USERNAME",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
)


def up(settings: Settings) -> None:
    """Start all three, wait until they answer, register the deployments and print the addresses."""
    lacking = [name for name in CREDENTIALS if not os.environ.get(name)]
    if settings.host not in LOOPBACK and lacking:
        raise ServiceError(
            f"GFM_HOST = {settings.host} is open to others: set {', '.join(lacking)} as well, or leave it at 127.0.0.1"
        )
    running = [service for service in _noted(settings) if _process(service)]
    if running:
        names = ", ".join(service.name for service in running)
        raise ServiceError(f"{names}: running already; `make down` ends what `make up` started")
    for name, port in (("GFM_MLFLOW_PORT", settings.mlflow_port), ("GFM_PREFECT_PORT", settings.prefect_port)):
        if _taken(settings.host, port):
            raise ServiceError(f"port {port} is taken by another program; set {name} to a free one")
    settings.state.mkdir(parents=True, exist_ok=True)
    started: list[Service] = []
    try:
        for name in ("mlflow", "prefect"):
            started.append(_start(name, settings))
            _note(settings, started)
        _wait("mlflow", settings, started, lambda: _answers(f"{settings.mlflow}/health"))
        _wait("prefect", settings, started, lambda: _answers(f"{settings.prefect}/api/health"))
        _limit_gpus(settings)
        started.append(_start("worker", settings))
        _note(settings, started)
        _wait("worker", settings, started, lambda: _worker_online(settings))
        _deploy(settings)
    except BaseException:
        _stop(settings, started)
        raise
    print(f"MLflow   {settings.mlflow}")
    print(f"Prefect  {settings.prefect}")
    print(f"worker   pool {POOL}, {settings.slots} at a time; logs in {settings.state}")
    print("schedules are off: turn them on in Prefect's UI, under Deployments")


def down(settings: Settings) -> None:
    """End what `up` started, with all that it started, and nothing else."""
    services = _noted(settings)
    running = [service for service in services if _process(service)]
    _stop(settings, services)
    print(f"ended: {', '.join(service.name for service in running)}" if running else "nothing was running")


def _start(name: str, settings: Settings) -> Service:
    log = (settings.state / f"{name}.log").open("w", encoding="utf-8")
    with log:
        process = subprocess.Popen(
            [str(SCRIPTS / f"{name}.sh")],
            cwd=ROOT,
            env=_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(name, process.pid, psutil.Process(process.pid).create_time())


def _environment(settings: Settings) -> dict[str, str]:
    """For the scripts, where the user has set nothing else."""
    ours = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PREFECT_API_URL": f"{settings.prefect}/api",
    }
    defaults = {
        "PREFECT_HOME": str(ROOT / ".prefect"),
        "GFM_POOL": POOL,
        "GFM_WORKER_SLOTS": str(settings.slots),
        "GFM_HOST": settings.host,
        "GFM_MLFLOW_PORT": str(settings.mlflow_port),
        "GFM_PREFECT_PORT": str(settings.prefect_port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        defaults["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_SERVER_API_AUTH_STRING"]
    return {**defaults, **os.environ, **ours}


def _wait(name: str, settings: Settings, started: list[Service], healthy: Any) -> None:
    end = time.monotonic() + START_S
    while not healthy():
        ended = [service for service in started if not _process(service)]
        if ended or time.monotonic() > end:
            which = ended[0].name if ended else name
            log = settings.state / f"{which}.log"
            last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
            raise ServiceError(f"{which}: {'ended' if ended else 'does not answer'}; see {log}:\n{last}")
        time.sleep(0.5)


def _stop(settings: Settings, services: list[Service]) -> None:
    """End services, the last started first, each with its descendants."""
    for service in reversed(services):
        leader = _process(service)
        if leader is None:
            continue
        family = [leader, *leader.children(recursive=True)]
        with suppress(psutil.NoSuchProcess):
            leader.send_signal(signal.SIGTERM)
        psutil.wait_procs([leader], timeout=STOP_S)
        for process in family:  # psutil compares start times: a number that was given anew is left alone
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=STOP_S)
    (settings.state / "running.json").unlink(missing_ok=True)


def _process(service: Service) -> psutil.Process | None:
    """The service's process, if it still is that one and lives."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(service.pid)
        if abs(process.create_time() - service.started) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _noted(settings: Settings) -> list[Service]:
    file = settings.state / "running.json"
    try:
        return [Service(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise ServiceError(f"{file}: cannot be read; end the services by hand and remove it") from error


def _note(settings: Settings, services: list[Service]) -> None:
    fresh = settings.state / "running.json.new"
    fresh.write_text(json.dumps([asdict(service) for service in services], indent=1) + "\n", encoding="utf-8")
    fresh.replace(settings.state / "running.json")


def _limit_gpus(settings: Settings) -> None:
    """Make the global concurrency limit `gpu`, or set it to the number wanted."""
    made = _call(settings, "POST", "/v2/concurrency_limits/", {"name": "gpu", "limit": settings.gpus, "active": True})
    if made is None:  # there is one
        _call(settings, "PATCH", "/v2/concurrency_limits/gpu", {"limit": settings.gpus})


def _worker_online(settings: Settings) -> bool:
    found = _call(settings, "POST", f"/work_pools/{POOL}/workers/filter", {})
    return isinstance(found, list) and any(worker.get("status") == "ONLINE" for worker in found)


def _deploy(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env=_environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"prefect deploy --all failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def _call(settings: Settings, method: str, path: str, body: object) -> Any:
    """Ask Prefect's API, again where it is busy (503: SQLite is locked); None where it refuses."""
    headers = {"Content-Type": "application/json"}
    if credentials := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    request = urllib.request.Request(f"{settings.prefect}/api{path}", json.dumps(body).encode(), headers, method=method)
    end = time.monotonic() + BUSY_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
            return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end:
                return None
        time.sleep(1)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it runs, and asks for credentials
    except OSError:
        return False


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) == 0:
        raise ServiceError(f"{name} = {text}: give a whole number above zero")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description="MLflow, a Prefect server and a worker on this machine.")
    parser.add_argument("action", choices=["up", "down"])
    action = {"up": up, "down": down}[parser.parse_args().action]
    try:
        action(Settings.read())
    except ServiceError as error:
        print(f"services: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
