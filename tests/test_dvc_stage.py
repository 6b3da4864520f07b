"""Killing `dvc repro` ends the stage that it runs, and nothing that a person started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# A stage with a process that works for it and does not listen: `begun` holds the numbers of both.
STEP = """
import os, subprocess, sys, time
from pathlib import Path
from gfm import dvc_stage

Path("here").write_text(str(os.getpid()))
dvc_stage.GRACE_S = 1.0
dvc_stage.stop_with_dvc()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(100)"
worker = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
worker.stdout.readline()
Path("begun.part").write_text(f"{os.getpid()} {worker.pid}")
os.replace("begun.part", "begun")
try:
    time.sleep(100)
finally:
    Path("closed").touch()
    if "late" in sys.argv:
        time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "step.py").write_text(STEP, encoding="utf-8")
    yield tmp_path
    for pid in found(tmp_path / "begun"):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def found(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text(encoding="utf-8").split()] if file.exists() else []


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def start(folder: Path, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        ("/bin/bash", "{step}"),  # bash replaces itself by the command: DVC is its parent
        ("/bin/sh", "true; {step} late; true"),  # this shell stays between them, and survives its DVC
    ],
)
def test_a_killed_dvc_takes_its_stage_and_all_below_it_along(folder: Path, shell: str, command: str) -> None:
    step = f"{sys.executable} step.py"
    (folder / "dvc.yaml").write_text(f'stages: {{long: {{cmd: "{command.format(step=step)}"}}}}', encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    dvc = start(folder, [sys.executable, "-m", "dvc", "repro"], SHELL=shell)
    wait_until((folder / "begun").exists)
    step_pid, worker = found(folder / "begun")
    time.sleep(0.7)  # longer than it takes the stage to look for the first time
    assert alive(step_pid) and alive(worker)
    dvc.kill()
    dvc.wait()
    wait_until(lambda: not alive(step_pid))
    assert (folder / "closed").exists()  # it had the time to close what it had open
    wait_until(lambda: not alive(worker))


@pytest.fixture
def parent_dies(folder: Path) -> Callable[[str], None]:
    """Runs the step below a parent that is gone before the step looks for it."""

    def run(stage: str) -> None:
        shell = f"(sleep 0.5; exec {sys.executable} step.py late) & exit"
        assert start(folder, ["/bin/sh", "-c", shell], DVC_STAGE=stage).wait() == 0

    return run


def test_a_stage_whose_dvc_died_before_it_looked_ends_as_well(folder: Path, parent_dies: Callable[[str], None]) -> None:
    parent_dies("long")
    wait_until(lambda: bool(found(folder / "here")))
    wait_until(lambda: not any(map(alive, found(folder / "here"))))
    if (folder / "begun").exists():
        wait_until(lambda: not any(map(alive, found(folder / "begun"))))


def test_a_command_of_a_closed_shell_goes_on(folder: Path, parent_dies: Callable[[str], None]) -> None:
    parent_dies("")
    wait_until((folder / "begun").exists)
    time.sleep(2)
    assert all(alive(pid) for pid in found(folder / "begun"))


def test_of_two_pipelines_started_at_once_the_second_refuses_and_names_the_first(folder: Path) -> None:
    step = f"{sys.executable} step.py"
    (folder / "dvc.yaml").write_text(f'stages: {{long: {{cmd: "{step}", outs: [out]}}}}', encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    first = start(folder, [sys.executable, "-m", "dvc", "repro"])
    wait_until((folder / "begun").exists)
    second = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, capture_output=True, text=True)
    first.kill()
    first.wait()
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr and f"PID {first.pid}" in second.stderr
    assert len(found(folder / "begun")) == 2  # the one step and its worker
