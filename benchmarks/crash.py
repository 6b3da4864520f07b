"""Is anything lost? Stages are killed and starved of disk at random moments, and must end as if undisturbed.

    python benchmarks/crash.py --times 25 --jobs 2 --results crash.jsonl --stage evaluate finetune …

For each stage a toy workspace, made by code, runs up to it; an undisturbed `dvc repro` is the reference. Then, on a
fresh copy every time, the stage is hit at a random moment of its work (every fifth time: of the whole run, the start of
Python included):

- kill, term: SIGKILL or SIGTERM to DVC alone, to the stage alone, or to every process of the run, in turn
- disk: the workspace's file system (a tmpfs of its own; needs root) has room for a random part of what the stage writes
  and becomes full; later there is room again

and the next `dvc repro` must succeed. A trial fails where then a file differs from the reference (bytes of data, of
weights and of scores), where right after the hit a file under a final name is not whole, where a process of the run
is left after 15 s, where something unfinished is left, or where a tracking run is left open. Exit code 1 if any did.

Every trial is a line of the results file with its commit. A benchmark that is started again with the same file does
what is missing, and repeats what failed at another commit. `--table` prints the file's table alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crash_room import Room, open_rooms
from crash_run import run
from crash_trial import KINDS, Crash, Plan, Stage, StageFailed
from toy_workspace import REPOSITORY, make_toy_workspace

CHAIN = (
    *("assemble", "index", "split", "validate", "teacher", "pretrain@gfm"),
    *("finetune@land-teacher", "finetune@land-gfm", "evaluate"),
)
STAGES = {
    "assemble": Stage("assemble", ("data/geopile/**/*",)),
    "index": Stage("index", ("data/tasks/**/*",)),
    "split": Stage("split", ("data/splits/**/*",)),
    "pretrain": Stage("pretrain@gfm", ("models/encoders/gfm/*.safetensors", "models/encoders/gfm/history.csv")),
    "finetune": Stage(
        "finetune@land-gfm",
        tuple(f"models/tasks/land/gfm/{name}" for name in ("*.safetensors", "*.csv", "predictions.png")),
    ),
    "evaluate": Stage("evaluate", ("reports/results.csv", "reports/arp.json", "reports/figures/**/*")),
}
COLUMNS = (
    f"{'stage':<10}{'kind':<6}{'undisturbed':>11}{'trials':>8}{'hit while running':>19}{'waited for room':>17}"
    f"{'longest until none left':>25}{'failed':>8}  commit"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the trials that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=25, help="trials of each kind at each stage (default 25)")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="in this order; default: all")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at the same time (default 1)")
    parser.add_argument("--results", type=Path, help="JSON lines, one a trial; what stands there is not done again")
    parser.add_argument("--table", action="store_true", help="print the table of the results file, and nothing else")
    options = parser.parse_args(arguments)
    if options.table and not options.results:
        parser.error("--table needs --results FILE")
    results = Results(options.results, options.seed)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, commit {results.commit}")
    plans = [
        Plan.draw(options.seed, stage, kind, number)
        for stage in options.stage
        for kind in options.kind
        for number in range(options.times)
    ]
    if not options.table:
        with tempfile.TemporaryDirectory(prefix="gfm-crash-") as scratch:
            _try(options, Path(scratch), results, [plan for plan in plans if not results.settles(plan)])
    rows = [(stage, kind) for stage in options.stage for kind in options.kind]
    if options.results:
        print(f"\nall trials in {options.results}", COLUMNS, *(results.row(*row) for row in rows), sep="\n")
    return 1 if any(results.failures(*row) for row in rows) else 0


def _try(options: argparse.Namespace, scratch: Path, results: Results, plans: list[Plan]) -> None:
    """Do these trials, stage by stage; a row is printed as soon as it is complete."""
    with open_rooms(scratch, options.jobs) as rooms:
        if not all(room.mounted for room in rooms) and "disk" in options.kind:
            plans = [plan for plan in plans if plan.kind != "disk"]
            print("no trials of a full disk: a tmpfs cannot be mounted here (it needs root)")
        stages = [stage for stage in options.stage if any(plan.stage == stage for plan in plans)]
        before = prepare(scratch / "prepared", {STAGES[stage].name for stage in stages})
        print(COLUMNS, flush=True)
        for stage in stages:
            try:
                crash = Crash(STAGES[stage], before[STAGES[stage].name], rooms)
            except StageFailed as error:
                sys.exit(str(error))
            _try_stage(stage, crash, [plan for plan in plans if plan.stage == stage], results, rooms)


def _try_stage(stage: str, crash: Crash, plans: list[Plan], results: Results, rooms: list[Room]) -> None:
    """The trials of one stage, as many at a time as there are rooms."""
    waiting = {kind: sum(plan.kind == kind for plan in plans) for kind in KINDS}
    with ThreadPoolExecutor(len(rooms)) as threads:
        trials = {threads.submit(crash.trial, plan): plan for plan in plans}
        try:
            for done in as_completed(trials):
                plan, outcome = trials[done], done.result()
                undisturbed = round(crash.reference.seconds, 1)
                results.add({**asdict(plan), **asdict(outcome), "undisturbed_s": undisturbed})
                print(f"{stage}, {plan}: {outcome.failure or 'nothing lost'}", file=sys.stderr, flush=True)
                waiting[plan.kind] -= 1
                if waiting[plan.kind] == 0:
                    print(results.row(stage, plan.kind), *results.failures(stage, plan.kind), sep="\n    ", flush=True)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # stopped: those that run end, no others begin


def prepare(folder: Path, wanted: Iterable[str]) -> dict[str, Path]:
    """Toy workspaces as they are right before each of the wanted stages."""
    folder.mkdir(parents=True)
    work, before, wanted = make_toy_workspace(folder), {}, set(wanted)
    for stage in CHAIN:
        if stage in wanted:
            before[stage] = shutil.copytree(work, folder / f"before-{stage}", symlinks=True)
        if wanted <= before.keys():
            break
        if failed := run(work, stage):
            sys.exit(f"the toy workspace's stage {stage} failed: {failed}")
    return before


class Results:
    """The trials that were done, in a file where one is named; of a trial that was repeated the last one counts."""

    def __init__(self, file: Path | None, seed: int) -> None:
        self.file, self.seed = file, seed
        described = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
        self.commit = subprocess.run(described, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
        self._trials: dict[tuple[str, str, int], dict[str, Any]] = {}
        known = file.read_text(encoding="utf-8") if file is not None and file.exists() else ""
        for line in known.splitlines():
            with suppress(ValueError):  # a last line that was cut off
                self._keep(json.loads(line))
        self._gap = "\n" * (known != "" and not known.endswith("\n"))

    def settles(self, plan: Plan) -> bool:
        """Whether a trial need not be done: it went well, or failed at this very commit."""
        known = self._trials.get((plan.stage, plan.kind, plan.number))
        return known is not None and (not known["failure"] or known["commit"] == self.commit)

    def add(self, trial: dict[str, Any]) -> None:
        """Remember a trial and write it down."""
        trial = {**trial, "seed": self.seed, "commit": self.commit}
        self._keep(trial)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"{self._gap}{json.dumps(trial)}\n")
            self._gap = ""

    def row(self, stage: str, kind: str) -> str:
        """A line of the table."""
        trials = self._of(stage, kind)
        if not trials:
            return f"{stage:<10}{kind:<6}{'none':>11}"
        seconds = sorted({trial["undisturbed_s"] for trial in trials})
        shown = f"{seconds[0]:.0f}" + f"-{seconds[-1]:.0f}" * (len(seconds) > 1)
        counts = [sum(bool(trial[what]) for trial in trials) for what in ("hit", "waited", "failure")]
        longest = max(trial["left_s"] for trial in trials)
        commits = ", ".join(dict.fromkeys(trial["commit"] for trial in trials))
        return (
            f"{stage:<10}{kind:<6}{shown:>9} s{len(trials):>8}{counts[0]:>19}{counts[1]:>17}"
            f"{longest:>23.1f} s{counts[2]:>8}  {commits}"
        )

    def failures(self, stage: str, kind: str) -> list[str]:
        """What was lost, a line a trial."""
        return [
            f"trial {trial['number']} ({trial['target'] or kind} at {trial['share']:.0%}): {trial['failure']}"
            for trial in self._of(stage, kind)
            if trial["failure"]
        ]

    def _of(self, stage: str, kind: str) -> list[dict[str, Any]]:
        return [self._trials[key] for key in sorted(self._trials) if key[:2] == (stage, kind)]

    def _keep(self, trial: dict[str, Any]) -> None:
        if trial.get("seed", self.seed) == self.seed:
            self._trials[trial["stage"], trial["kind"], trial["number"]] = trial


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the file system is given back
    sys.exit(main())
