"""A trial of `crash.py`: a stage is hit at a moment of its work, run again, and compared with an undisturbed run."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from crash_room import Room
from crash_run import LONGEST_S, begin, commands, end, hit, last_lines, marked, run

PATIENCE_S = 15.0  # for the processes of a killed run to end
DVC_ALONE_S = 20.0  # that long after the stage's end on a full disk DVC waits for room
KINDS = ("kill", "term", "disk")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
TARGETS = ("dvc", "stage", "all")
LEAST_ROOM = 256 * 1024  # bytes of a full disk that are drawn from, where a stage writes less
FROM_THE_START = 5  # every fifth trial may be hit before the stage's work begins: it starts, and imports
# The last one is DVC's own: it tries in an output's folder which links it can make there.
UNFINISHED = ("**/.*.new", "**/.*.old", "**/.*.part", "**/unfinished*", "checkpoints/gfm", "**/.*.tmp")


class StageFailed(Exception):
    """A stage that failed although nothing disturbed it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by its name in dvc.yaml, and which of its files are the same in every run."""

    name: str
    same: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial does; the same for the same seed, stage, kind and number."""

    stage: str
    kind: str
    number: int
    target: str  # of the signal
    working: bool  # the share is of what comes after the stage's work has begun
    share: float  # of the time, or of the bytes that the run needs

    @classmethod
    def draw(cls, seed: int, stage: str, kind: str, number: int) -> Plan:
        """The plan of one trial."""
        share = random.Random(f"{seed} {stage} {kind} {number}").random()
        target = "" if kind == "disk" else TARGETS[number % len(TARGETS)]
        return cls(stage, kind, number, target, number % FROM_THE_START > 0, share)

    def __str__(self) -> str:
        what = f"{self.kind} of {self.target}" if self.target else f"full {self.kind}"
        return f"{what} at {self.share:.0%}{' of its work' if self.working else ''}"


@dataclass(slots=True)
class Outcome:
    """What became of a trial."""

    failure: str = ""
    hit: bool = False  # the run was still going on
    left_s: float = 0.0  # the time until no process was left
    waited: bool = False  # DVC waited for room on the full disk, and went on with room
    said: str = ""  # the end of the output of the run that was hit


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """How a stage ends when nothing happens, and what that takes."""

    files: dict[str, str]
    seconds: float
    begins: float  # seconds until its work begins
    growth: int  # bytes that the disk takes on at most
    growth_working: int  # the same, counted from when its work begins


class Crash:
    """The trials of one stage, from a workspace in which what it needs has run."""

    def __init__(self, stage: Stage, prepared: Path, rooms: Sequence[Room]) -> None:
        self.stage, self.prepared, self.rooms = stage, prepared, rooms
        self._free: SimpleQueue[Room] = SimpleQueue()
        for room in rooms:
            self._free.put(room)
        with ThreadPoolExecutor(len(rooms)) as threads:  # side by side, as the trials run
            runs = list(threads.map(self._undisturbed, rooms))
        self.reference = max(runs, key=lambda found: found.seconds)
        if any(found.files != self.reference.files for found in runs):
            raise StageFailed(f"{stage.name}: two undisturbed runs differ")

    def trial(self, plan: Plan) -> Outcome:
        """One trial, in a room that is free."""
        room = self._free.get()
        try:
            return self._trial(plan, room)
        finally:
            room.reopen()
            self._free.put(room)

    def _trial(self, plan: Plan, room: Room) -> Outcome:
        outcome, work, trial = Outcome(), self._fresh(room), uuid.uuid4().hex
        if not plan.working and plan.kind == "disk":
            room.leave(int(plan.share * self.reference.growth))
        process = begin(work, self.stage.name, trial)
        try:
            self._wait_for_work(process, plan, work)
            if plan.kind == "disk":
                if plan.working:
                    room.leave(int(plan.share * self.reference.growth_working))
                outcome.failure = self._on_full_disk(process, trial, room, outcome)
            else:
                self._wait(process, plan.share, plan.working)
                outcome.hit = process.poll() is None
                outcome.said = last_lines(work)
                hit(trial, process, plan.target, SIGNALS[plan.kind])
            left, outcome.left_s = _left(trial, process)
        finally:
            end(trial, process)
            room.reopen()
        outcome.said = f"{outcome.said} || {last_lines(work)}" if plan.target else last_lines(work)
        if not outcome.failure:
            outcome.failure = f"{left} processes left after {PATIENCE_S:g} s" if left else self._judge(work)
        return outcome

    def _judge(self, work: Path) -> str:
        """What is wrong after the hit, or after the next run; an empty string where nothing is."""
        expected = self.reference.files
        unfinished = {path for pattern in UNFINISHED for path in _glob(work, pattern)}
        files = self._files(work)
        torn = [name for name in files if expected.get(name) != files[name] and work / name not in unfinished]
        if torn:
            return f"{torn[0]} is not whole under its final name"
        if failed := run(work, self.stage.name):
            return f"the next dvc repro failed: {failed}"
        files = self._files(work)
        other = sorted(name for name in expected.keys() | files if expected.get(name) != files.get(name))
        if other:
            return f"{other[0]} differs from the undisturbed run's" + f" and {len(other) - 1} more" * (len(other) > 1)
        left = [path.relative_to(work) for pattern in UNFINISHED for path in _glob(work, pattern)]
        return f"{left[0]} is left" if left else _open_runs(work)

    def _wait_for_work(self, process: subprocess.Popen[bytes], plan: Plan, work: Path) -> None:
        """Until the stage's work begins, where the plan counts from there."""
        while plan.working and self.reference.begins and process.poll() is None and not _works(work):
            time.sleep(0.01)

    def _wait(self, process: subprocess.Popen[bytes], share: float, working: bool) -> None:
        """Until the moment of the hit, or the end of the run."""
        seconds = self.reference.seconds - (self.reference.begins if working else 0.0)
        with suppress(subprocess.TimeoutExpired):
            process.wait(share * seconds)

    def _on_full_disk(self, process: subprocess.Popen[bytes], trial: str, room: Room, outcome: Outcome) -> str:
        """Until the run has ended; where DVC alone is left, with room again. What was wrong, or an empty string."""
        begun = alone = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if commands(marked(trial)) or outcome.waited:
                alone = now
            elif now - alone > DVC_ALONE_S:
                outcome.waited = True
                room.reopen()
            if now - begun > LONGEST_S:
                outcome.hit = True
                return f"still running after {LONGEST_S:g} s on the full disk"
            time.sleep(0.2)
        outcome.hit = outcome.waited or process.returncode != 0
        return ""

    def _undisturbed(self, room: Room) -> Undisturbed:
        work = self._fresh(room)
        before, start = room.used(), time.monotonic()
        process = begin(work, self.stage.name, "reference")
        begins, at_begin, growth, growth_working = 0.0, before, 0, LEAST_ROOM
        while process.poll() is None:
            used = room.used()
            if not begins and _works(work):
                begins, at_begin = time.monotonic() - start, used
            growth, growth_working = max(growth, used - before), max(growth_working, used - at_begin)
            time.sleep(0.02)
        seconds = time.monotonic() - start
        if process.returncode:
            raise StageFailed(f"undisturbed, {self.stage.name} failed: {last_lines(work, 20)}")
        files = self._files(work)
        if not files:
            raise StageFailed(f"{self.stage.name} wrote nothing to compare")
        return Undisturbed(files, seconds, begins, growth, growth_working)

    def _fresh(self, room: Room) -> Path:
        """A copy of the prepared workspace, with the raw data beside it."""
        raw, work = room.folder / "raw", room.folder / "work"
        if not raw.exists():
            shutil.copytree(self.prepared.parent / "raw", raw)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.prepared, work, symlinks=True)
        shutil.rmtree(work / ".gfm" / "locks", ignore_errors=True)  # of the stages before: `_works` looks for its own
        return work

    def _files(self, work: Path) -> dict[str, str]:
        return {
            str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in self.stage.same
            for path in _glob(work, pattern)
            if path.is_file()
        }


def _works(work: Path) -> bool:
    """Whether the stage's work has begun: the lock on its output is there."""
    return any((work / ".gfm" / "locks").glob("*"))


def _glob(work: Path, pattern: str) -> list[Path]:
    inner = (".dvc", "mlruns")
    return [path for path in work.glob(pattern) if path.relative_to(work).parts[0] not in inner]


def _left(trial: str, process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """How many processes are left, and after what time there were none."""
    start = time.monotonic()
    while (left := len(marked(trial))) and time.monotonic() - start < PATIENCE_S:
        process.poll()
        time.sleep(0.05)
    return left, time.monotonic() - start


def _open_runs(work: Path) -> str:
    """The stages' tracking runs that are still RUNNING; a pipeline's own stays open until `evaluate`."""
    if not (work / "mlflow.db").exists():
        return ""
    with sqlite3.connect(work / "mlflow.db") as database:
        names = database.execute("select name from runs where status = 'RUNNING' and name != 'pipeline'").fetchall()
    return f"the tracking run {names[0][0]} is left open" if names else ""
