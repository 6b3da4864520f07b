"""How long a user waits: `gfm --help`, the whole quickstart, and a run with nothing to do.

    python benchmarks/pipeline.py [--rounds 5] [--skip-full]

Runs in a temporary clone, so that the checkout's own outputs are left alone. Prints medians, and each as a ratio
to a named reference measured in the same run: starting the Python interpreter.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def seconds(command: list[str], cwd: Path) -> float:
    """Wall-clock seconds of one run; a command that fails ends the benchmark with its output."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    elapsed = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return elapsed


def median(command: list[str], cwd: Path, rounds: int) -> float:
    """The median of `rounds` runs after one warm-up."""
    seconds(command, cwd)
    return statistics.median(seconds(command, cwd) for _ in range(rounds))


def cpu_name() -> str:
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each short command (default 5)")
    parser.add_argument("--skip-full", action="store_true", help="leave out the whole quickstart (minutes)")
    args = parser.parse_args()
    for tool in ("gfm", "dvc"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on PATH; run `make bench`")
    os.environ["DVC_NO_ANALYTICS"] = "1"

    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, commit {commit.stdout.strip()}")
    with tempfile.TemporaryDirectory(prefix="gfm-bench-") as folder:
        clone = Path(folder) / "gfm"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        rows = [("python -c pass (reference)", median([sys.executable, "-c", "pass"], clone, args.rounds), None)]
        rows.append(("gfm --help", median(["gfm", "--help"], clone, args.rounds), 0.5))
        if not args.skip_full:
            rows.append(("gfm sample", seconds(["gfm", "sample"], clone), None))
            rows.append(("dvc repro, everything", seconds(["dvc", "repro"], clone), 300.0))
            rows.append(("dvc repro, nothing to do", median(["dvc", "repro"], clone, args.rounds), 2.0))

    reference = rows[0][1]
    print(f"{'command':<28}{'seconds':>10}{'x reference':>14}{'aim':>8}")
    for name, value, aim in rows:
        print(f"{name:<28}{value:>10.2f}{value / reference:>14.1f}{'' if aim is None else f'{aim:g}':>8}")


if __name__ == "__main__":
    main()
