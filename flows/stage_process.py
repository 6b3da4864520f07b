"""Run a command so that all it started dies with the flow: `python stage_process.py COMMAND…` in a session of its own.

DVC leaves a training behind when it is killed, and the next repro starts a second one on the same output. This
process leads the command's group; told to stop, or when the flow's process is gone, it takes the group with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0  # for a training to close its files before it is killed


def main() -> int:
    command, flow = sys.argv[2:], int(sys.argv[1])
    signal.signal(signal.SIGTERM, _stop)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != flow:  # it died before the line above
            return 143
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code  # of a signal, as a shell says it


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + GRACE_S
    while _others_alive() and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(0, signal.SIGKILL)


def _others_alive() -> bool:
    """Whether the group holds a living process besides this one (Linux; elsewhere the whole grace is given)."""
    try:
        processes = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
    except FileNotFoundError:
        return True
    for pid in processes:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                state, _, group = file.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # gone in the meantime
        if int(group) == os.getpgrp() and int(pid) != os.getpid() and state != "Z":
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
