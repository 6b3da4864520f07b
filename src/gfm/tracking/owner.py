"""Which process a tracking run belongs to, and whether that process still lives: what a kill leaves open shows so."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

HOST, PID, STARTED, NAMESPACE = "gfm.host", "gfm.pid", "gfm.pid_started", "gfm.pid_namespace"
PROC = Path("/proc")


class Owner(Enum):
    """What this process can know of the one that a run belongs to."""

    ALIVE = "its process lives"
    GONE = "its process is gone"
    ELSEWHERE = "its process is of another machine or container"
    UNKNOWN = "no process is recorded on it"


def owner_tags(pid: int | None = None) -> dict[str, str]:
    """Which process a run belongs to (None: this one); its start time tells it from a later one of the same number."""
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PID: str(pid), STARTED: _started(pid), NAMESPACE: _namespace()}


def of_this_host(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is recorded from this machine."""
    return tags.get(HOST) == socket.gethostname()


def owner(tags: Mapping[str, str]) -> Owner:
    """Whether the process that a run's tags name still lives.

    Another process number's space (a container that shares the host's name) counts as another machine.
    """
    if not {HOST, PID, STARTED, NAMESPACE} <= tags.keys():
        return Owner.UNKNOWN
    if not of_this_host(tags) or tags[NAMESPACE] != _namespace():
        return Owner.ELSEWHERE
    return Owner.ALIVE if _started(int(tags[PID])) == tags[STARTED] else Owner.GONE


def _started(pid: int) -> str:
    """When a process started, or an empty string when there is none; a zombie is dead already.

    On Linux in ticks since the boot that is named with it: a time of day would change whenever the clock is set, and
    the run of a living process would look like that of a dead one.
    """
    try:
        # The name, in parentheses, may hold anything; after it the state and, 19 fields on, the start time (proc(5)).
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return "" if PROC.joinpath("self/stat").exists() else _started_elsewhere(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{rest[18]} {boot}"


def _started_elsewhere(pid: int) -> str:
    """The same where there is no /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.1f}"
    except psutil.NoSuchProcess:
        return ""


def _namespace() -> str:
    """The space that process numbers count in: a container has one of its own."""
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return "none"
