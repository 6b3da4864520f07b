"""One `dvc repro` of a trial: begun, watched, hit, and all of its processes found again by a mark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from toy_workspace import GFM

MARK = "GFM_CRASH_TRIAL"  # in the environment of every process of a trial
LONGEST_S = 300.0


def begin(folder: Path, stage: str, trial: str) -> subprocess.Popen[bytes]:
    """Start `dvc repro` of a stage, its output in a file."""
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false"}
    path = f"{Path(GFM).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # DVC's own state is by the path of the workspace, which here is another workspace every time.
    apart = {"PATH": path, MARK: trial, "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"), "OMP_NUM_THREADS": "1"}
    with log_of(folder).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "-s", stage],
            cwd=folder,
            env={**os.environ, **quiet, **apart},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(folder: Path, stage: str) -> str:
    """`dvc repro` of a stage to its end; how it failed, or an empty string."""
    process = begin(folder, stage, "next")
    try:
        code = process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"still running after {LONGEST_S:g} s: {last_lines(folder)}"
    return "" if code == 0 else f"exit code {code}: {last_lines(folder)}"


def log_of(folder: Path) -> Path:
    """Where the output of a workspace's last command is: not on the disk that becomes full."""
    return folder.parents[1] / "log"


def last_lines(folder: Path, count: int = 4) -> str:
    """The end of the last command's output, on one line."""
    lines = log_of(folder).read_text(errors="replace").strip().splitlines()
    return " / ".join(line for line in lines[-count:] if line.strip())


def hit(trial: str, process: subprocess.Popen[bytes], target: str, number: signal.Signals) -> None:
    """Send a signal to DVC alone, to the stage's command alone (to DVC where it has not begun), or to all."""
    pids = marked(trial)
    if target == "dvc":
        pids = [process.pid]
    elif target == "stage":
        pids = commands(pids)[:1] or [process.pid]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end(trial: str, process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a trial."""
    for pid in marked(trial):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def commands(pids: list[int]) -> list[int]:
    """Those of the processes that are the stage's command."""
    return [pid for pid in pids if GFM.encode() in command_line(pid)]


def marked(trial: str) -> list[int]:
    """The living processes of a trial, the oldest first."""
    wanted, found = f"{MARK}={trial}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                found += [int(entry.name)] * (state not in "ZX")
    return sorted(found)


def command_line(pid: int) -> bytes:
    """A process's command; empty where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
