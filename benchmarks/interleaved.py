"""Time several ways of doing the same work in alternating rounds, and print their ratios to a named one."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from gfm.tracking.provenance import cpu_model

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Way:
    """One way; `work` does it once and returns how many images it was. Seconds are of each round after the first."""

    name: str
    work: Callable[[], int]
    aim: float | None = None  # its ratio to the reference should be at least this
    images: int = 0
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)


def run(ways: Sequence[Way], rounds: int) -> None:
    """Run all ways once to warm up, then `rounds` times, one after the other, so that noise meets all of them."""
    for number in range(rounds + 1):
        for way in ways:
            wall, cpu = time.perf_counter(), time.process_time()
            way.images = way.work()
            if number:
                way.cpu_s.append(time.process_time() - cpu)
                way.wall_s.append(time.perf_counter() - wall)


def summary(ways: Sequence[Way]) -> list[dict[str, object]]:
    """Images a second of processor and clock time (medians), and the rate as a ratio to the first way's.

    Ratios are of processor time within a round, as [median, lowest, highest].
    """
    first = ways[0]
    rows: list[dict[str, object]] = []
    for way in ways:
        ratios = [
            (way.images / own) / (first.images / reference)
            for own, reference in zip(way.cpu_s, first.cpu_s, strict=True)
        ]
        rows.append(
            {
                "name": way.name,
                "images": way.images,
                "per_cpu_s": way.images / statistics.median(way.cpu_s),
                "per_wall_s": way.images / statistics.median(way.wall_s),
                "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
                "aim": way.aim,
            }
        )
    return rows


def table(title: str, rows: Sequence[dict[str, object]]) -> str:
    """A table in Markdown."""
    lines = [
        f"| {title} | images/s of a core | by the clock | x the first | lowest-highest | aim |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        middle, low, high = row["ratio"]  # type: ignore[misc]
        aim = "" if row["aim"] is None else f"{row['aim']}"
        lines.append(
            f"| {row['name']} | {row['per_cpu_s']:,.0f} | {row['per_wall_s']:,.0f} | {middle:.2f} | "
            f"{low:.2f}-{high:.2f} | {aim} |"
        )
    return "\n".join(lines)


def header(*packages: str) -> str:
    """Processor, versions and commit, in one line."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{cpu_model()}; Python {platform.python_version()}, {versions}; commit {commit}"


def write_json(path: Path | None, found: object) -> None:
    """Write what was found, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def arguments(description: str | None, *, images: int, rounds: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=images, help=f"images of each size (default {images})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds after the first (default {rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser
