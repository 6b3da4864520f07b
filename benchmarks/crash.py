"""Is anything lost? Stages are killed and starved of disk at random moments, and must end as if undisturbed.

    python benchmarks/crash.py --times 25 --stage assemble pretrain …

For each stage a toy workspace, made by code, runs up to it; one undisturbed `dvc repro` is the reference. Then, on a
fresh copy every time, the stage is hit at a random moment of that duration:

- kill, term: SIGKILL or SIGTERM to DVC alone, to the stage alone, or to every process of the run, in turn
- disk: the workspace's file system (a tmpfs of its own; needs root) becomes full; later there is room again

and the next `dvc repro` must succeed. A trial fails where then a file differs from the reference (bytes of data, of
weights and of scores), where right after the hit a file under a final name is not whole, where a process of the run
is left after 15 s, where something unfinished is left, or where a tracking run is left open. Exit code 1 if any did.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from toy_workspace import GFM, REPOSITORY, make_toy_workspace

MARK = "GFM_CRASH_TRIAL"  # in the environment of every process of a trial
PATIENCE_S = 15.0  # for the processes of a killed run to end
LONGEST_S = 300.0
TMPFS_MB = 600
KINDS = ("kill", "term", "disk")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
TARGETS = ("dvc", "stage", "all")
UNFINISHED = ("**/.*.new", "**/.*.old", "**/.*.part", "**/unfinished*", "checkpoints/gfm")


@dataclass(frozen=True)
class Stage:
    """A stage by its name in dvc.yaml, what runs before it, and which of its files are the same in every run."""

    name: str
    needs: tuple[str, ...]
    same: tuple[str, ...]


DATA = ("assemble", "index", "split", "validate")
TRAINED = (*DATA, "teacher", "pretrain@gfm")
TUNED = (*TRAINED, "finetune@land-teacher", "finetune@land-gfm")
STAGES = {
    "assemble": Stage("assemble", (), ("data/geopile/**/*",)),
    "index": Stage("index", ("assemble",), ("data/tasks/**/*",)),
    "split": Stage("split", ("assemble", "index"), ("data/splits/**/*",)),
    "pretrain": Stage(
        "pretrain@gfm", TRAINED[:-1], ("models/encoders/gfm/*.safetensors", "models/encoders/gfm/history.csv")
    ),
    "finetune": Stage(
        "finetune@land-gfm",
        TUNED[:-1],
        tuple(f"models/tasks/land/gfm/{name}" for name in ("*.safetensors", "*.csv", "predictions.png")),
    ),
    "evaluate": Stage("evaluate", TUNED, ("reports/results.csv", "reports/arp.json", "reports/figures/**/*")),
}


@dataclass
class Tally:
    """What the trials of one kind at one stage gave."""

    failures: list[str] = field(default_factory=list)
    trials: int = 0
    hit: int = 0  # the run was still going on
    waited: float = 0.0  # the longest time until no process was left


def main(arguments: list[str] | None = None) -> int:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=25, help="trials of each kind at each stage (default 25)")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = parser.parse_args(arguments)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, commit {commit.stdout.strip()}")
    kinds, failed = list(options.kind), False
    with tempfile.TemporaryDirectory(prefix="gfm-crash-") as scratch, disk(Path(scratch) / "disk") as room:
        if not room.mounted and "disk" in kinds:
            kinds.remove("disk")
            print("no trials of a full disk: a tmpfs cannot be mounted here (it needs root)")
        prepared = prepare(Path(scratch) / "prepared")
        print(f"{'stage':<10}{'kind':<6}{'undisturbed':>12}{'trials':>8}{'hit':>5}{'left after':>12}{'failed':>8}")
        for name in options.stage:
            crash = Crash(STAGES[name], prepared, room, random.Random(f"{options.seed} {name}"))
            for kind in kinds:
                tally = crash.trials(kind, options.times)
                row = f"{tally.trials:>8}{tally.hit:>5}{tally.waited:>10.1f} s{len(tally.failures):>8}"
                print(f"{name:<10}{kind:<6}{crash.seconds:>10.1f} s{row}", flush=True)
                for line in tally.failures:
                    failed = True
                    print(f"    {line}", flush=True)
    return 1 if failed else 0


def prepare(folder: Path) -> Path:
    """The toy workspace before its first stage."""
    folder.mkdir()
    return make_toy_workspace(folder)


class Room:
    """Where trials run: a folder, or a file system of its own whose size can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = self._mount(f"size={TMPFS_MB}m")

    def used(self) -> int:
        """Bytes in use."""
        return shutil.disk_usage(self.folder).used

    def limit(self, size: int) -> None:
        """Let no more than so many bytes fit."""
        subprocess.run(["mount", "-o", f"remount,size={max(size // 1024, 1)}k", self.folder], check=True)

    def close(self) -> None:
        """Give the file system back."""
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "gfm-crash", str(self.folder)]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False


@contextmanager
def disk(folder: Path) -> Iterator[Room]:
    """Where trials run, given back afterwards."""
    room = Room(folder)
    try:
        yield room
    finally:
        room.close()


class Crash:
    """The trials of one stage: what it needs has run, and the reference is known."""

    def __init__(self, stage: Stage, prepared: Path, room: Room, draw: random.Random) -> None:
        self.stage, self.room, self.draw = stage, room, draw
        self.work = room.folder / "work"
        for need in stage.needs:
            done = run(prepared, need)
            if done:
                sys.exit(f"the toy workspace's stage {need} failed: {done}")
        self.prepared = prepared
        if not (room.folder / "raw").exists():
            shutil.copytree(prepared.parent / "raw", room.folder / "raw")
        self._fresh()
        before = room.used()
        start = time.monotonic()
        process = begin(self.work, stage.name, "reference")
        self.growth = 0
        while process.poll() is None:
            self.growth = max(self.growth, room.used() - before)
            time.sleep(0.02)
        self.seconds = time.monotonic() - start
        if process.returncode:
            sys.exit(f"undisturbed, {stage.name} failed:\n{log_of(self.work).read_text()[-3000:]}")
        self.reference = self._files()
        if not self.reference:
            sys.exit(f"{stage.name} wrote nothing to compare")

    def trials(self, kind: str, times: int) -> Tally:
        """So many trials of one kind."""
        tally = Tally()
        for number in range(times):
            target = TARGETS[number % len(TARGETS)]
            share = self.draw.random()
            reason = self._trial(kind, target, share, tally)
            tally.trials += 1
            what = kind if kind == "disk" else f"{kind} of {target}"
            if reason:
                tally.failures.append(f"{what} at {share:.0%}: {reason}")
            print(f"{self.stage.name}, {what} at {share:.0%}: {reason or 'nothing lost'}", file=sys.stderr, flush=True)
        return tally

    def _trial(self, kind: str, target: str, share: float, tally: Tally) -> str:
        """One trial; returns what was wrong, or an empty string."""
        self._fresh()
        trial = uuid.uuid4().hex
        if kind == "disk":
            self.room.limit(self.room.used() + int(share * self.growth))
        process = begin(self.work, self.stage.name, trial)
        try:
            if kind == "disk":
                try:
                    process.wait(LONGEST_S)
                except subprocess.TimeoutExpired:
                    return f"still running after {LONGEST_S:g} s on the full disk: {last_lines(log_of(self.work))}"
                tally.hit += process.returncode != 0
            else:
                self._wait(process, share)
                tally.hit += process.poll() is None
                hit(trial, process, target, SIGNALS[kind])
            left, waited = self._ended(trial, process)
        finally:
            for pid in marked(trial):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            if self.room.mounted:
                self.room.limit(TMPFS_MB * 2**20)
        tally.waited = max(tally.waited, waited)
        if left:
            return f"{left} processes left after {PATIENCE_S:g} s"
        torn = [name for name, digest in self._files().items() if self.reference.get(name) != digest]
        if torn:
            return f"{torn[0]} is not whole under its final name"
        output = run(self.work, self.stage.name)
        if output:
            return f"the next dvc repro failed: {output}"
        files = self._files()
        other = sorted(name for name in self.reference.keys() | files if self.reference.get(name) != files.get(name))
        if other:
            return f"{other[0]} differs from the undisturbed run's" + f" and {len(other) - 1} more" * (len(other) > 1)
        unfinished = [str(path.relative_to(self.work)) for pattern in UNFINISHED for path in self._glob(pattern)]
        if unfinished:
            return f"{unfinished[0]} is left"
        return self._open_runs()

    def _wait(self, process: subprocess.Popen[bytes], share: float) -> None:
        """Until the moment of the hit, or the end of the run."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(share * self.seconds)

    def _fresh(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.prepared, self.work, symlinks=True)

    def _glob(self, pattern: str) -> list[Path]:
        inner = (".dvc", "mlruns")
        return [path for path in self.work.glob(pattern) if path.relative_to(self.work).parts[0] not in inner]

    def _files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.work)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in self.stage.same
            for path in self._glob(pattern)
            if path.is_file()
        }

    def _ended(self, trial: str, process: subprocess.Popen[bytes]) -> tuple[int, float]:
        """How many processes are left, and after what time there were none."""
        start = time.monotonic()
        while (left := len(marked(trial))) and time.monotonic() - start < PATIENCE_S:
            process.poll()
            time.sleep(0.05)
        return left, time.monotonic() - start

    def _open_runs(self) -> str:
        """The stages' tracking runs that are still RUNNING; a pipeline's own stays open until `evaluate`."""
        if not (self.work / "mlflow.db").exists():
            return ""
        with sqlite3.connect(self.work / "mlflow.db") as database:
            names = database.execute("select name from runs where status = 'RUNNING' and name != 'pipeline'").fetchall()
        return f"the tracking run {names[0][0]} is left open" if names else ""


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


def log_of(folder: Path) -> Path:
    """Where the output of a workspace's last command is: not on the disk that becomes full."""
    return folder.parents[1] / "log"


def run(folder: Path, stage: str) -> str:
    """`dvc repro` of a stage to its end; how it failed, or an empty string."""
    process = begin(folder, stage, "next")
    try:
        code = process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"still running after {LONGEST_S:g} s: {last_lines(log_of(folder))}"
    return "" if code == 0 else f"exit code {code}: {last_lines(log_of(folder))}"


def last_lines(log: Path) -> str:
    """The end of a command's output, on one line."""
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-4:])


def hit(trial: str, process: subprocess.Popen[bytes], target: str, number: signal.Signals) -> None:
    """Send a signal to DVC alone, to the stage's command alone (to DVC where it has not begun), or to all."""
    pids = marked(trial)
    if target == "dvc":
        pids = [process.pid]
    elif target == "stage":
        pids = [pid for pid in pids if GFM.encode() in command_line(pid)][:1] or [process.pid]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the file system is given back
    sys.exit(main())
