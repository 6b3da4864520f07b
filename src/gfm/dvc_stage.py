"""A command that DVC runs ends when that DVC does: a training left behind would meet the next repro's on its output.

DVC puts its stage's name into the environment of what it starts, and nothing here happens without it: a command that
a person starts, in the background of a shell for example, outlives whoever started it. Linux only.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STAGE_VARIABLE = "DVC_STAGE"  # set by DVC for every stage command (dvc.stage.run)
LOOK_EVERY_S = 0.5
GRACE_S = 10.0  # for a command to close its files and its run, before it is killed with all that it started
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc says of a living process; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    group: int
    session: int
    started: str


def stop_with_dvc() -> None:
    """Stop this process and all below it once the DVC that runs it as a stage is gone; call it in the main thread.

    The kernel's parent-death signal would not do: it tells of the direct parent only, which is a shell wherever that
    does not replace itself by the command, and a shell survives its DVC.
    """
    stage = os.environ.get(STAGE_VARIABLE)
    if not stage or sys.platform != "linux":
        return
    top = _topmost_of_stage(stage)
    if top is None:
        return  # what started it cannot be seen, as in a container that took over the environment
    stop = _Stop(os.getpid())
    signal.signal(signal.SIGTERM, stop)
    atexit.register(stop.sweep)  # the first one registered is the last to run
    dvc = _read(top.parent)
    watched = None if dvc is None or _adopted(top, dvc) else dvc
    threading.Thread(target=_watch, args=(watched,), name="stop with dvc", daemon=True).start()


class _Stop:
    """Ends a command on SIGTERM as Ctrl-C would: what it opened is closed, its run is recorded as killed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.called = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.called = True
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != self.pid:  # a forked worker, which has nothing to close
            os.kill(os.getpid(), number)
        sys.exit(128 + number)

    def sweep(self) -> None:
        """After a stop, kill what did not end with this process."""
        if self.called:
            _kill(_below(self.pid))


def _topmost_of_stage(stage: str) -> Process | None:
    """The ancestor (or this process) that DVC started: the last one upwards that carries the stage's name."""
    found, process = None, _read(os.getpid())
    while process is not None and (process.pid == os.getpid() or _carries(process.pid, stage)):
        found, process = process, _read(process.parent)
    return found if process is not None else None


def _adopted(child: Process, parent: Process) -> bool:
    """Whether `parent` did not start `child` but took it in, because its DVC died before this one looked.

    A process begins in its parent's session and group, and leaves them only to lead its own.
    """
    foreign = child.session not in (parent.session, child.pid)
    return foreign or (parent.pid == 1 and child.group not in (parent.group, child.pid))


def _watch(dvc: Process | None) -> None:
    while dvc is not None and (now := _read(dvc.pid)) is not None and now.started == dvc.started:
        time.sleep(LOOK_EVERY_S)
    with suppress(OSError):  # a closed terminal
        print("gfm: the dvc that ran this stage is gone: stopping", file=sys.stderr, flush=True)
    # To the main thread by name: only a signal of its own wakes it out of a system call.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(GRACE_S)
    _kill([*_below(os.getpid()), os.getpid()])


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    parents = {
        found.pid: found.parent
        for entry in PROC.iterdir()
        if entry.name.isdigit() and (found := _read(int(entry.name)))
    }
    below, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        below += sorted(level)
    return below


def _read(pid: int) -> Process | None:
    """A living process, or None where there is none (a zombie is dead already) or it cannot be seen."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; after it: state, parent, group, session, …, start time (proc(5)).
    state, parent, group, session, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid, int(parent), int(group), int(session), rest[15])


def _carries(pid: int, stage: str) -> bool:
    """Whether a process was started with this stage's name in its environment."""
    try:
        return f"{STAGE_VARIABLE}={stage}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # another user's, thus not one that this DVC started
