"""How exactly the modules and the schedule agree with the published code.

    python benchmarks/parity.py FILE.safetensors [FILE ...] [--schedule FILE.json]

A parity file holds the state dict of a small published model, its input, and what the published code computed from
them; the model is built from the file's metadata. A schedule file (.json) holds learning rates and parameter groups.
Prints a row for each quantity with its relative error. Exit status: 0 all within the tolerance, 1 an error above it,
2 a file that cannot be used or holds something that nothing here is compared with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gfm.downstream.parity import compare_finetuning
from gfm.errors import GfmError
from gfm.models.parity import (
    FLOOR,
    LOSS_FLOOR,
    LOSSES,
    TOLERANCE,
    Row,
    compare,
    compare_buffers,
    published_model,
)
from gfm.models.parity_file import read_parity_file
from gfm.models.schedule_file import SCHEDULE_TOLERANCE, read_schedule_file
from gfm.pretraining.parity import compare_pretraining


def check_tensors(path: Path) -> bool:
    """Compare a parity file, print the table, and say whether every error is within the tolerance."""
    file = read_parity_file(path)
    model = published_model(file)
    rows, buffers = compare(file, model), compare_buffers(file, model)
    print(f"{path}: alpha {file.alpha:g}, {float(file.mask.float().mean()):.0%} masked, batch of {len(file.image)}")
    print(f"student: {file.student}\nteacher: {file.teacher}")
    for key, value in file.not_needed.items():
        print(f"metadata that decides nothing here: {key} = {value}")
    print(f"float32, CPU, torch {torch.__version__}; {len(file.state)} tensors of the state read")
    print(
        "relative error = max |found - expected| / max |expected|, the denominator at least "
        f"{FLOOR:g} ({', '.join(sorted(LOSSES))}: {LOSS_FLOOR:g})"
    )
    return report(rows + condensed(buffers, TOLERANCE, "indices and attention masks"), TOLERANCE)


def check_schedule(path: Path) -> bool:
    """Compare a schedule file, print the table, and say whether every error is within the tolerance."""
    stored = read_schedule_file(path)
    print(f"{path}: recipe gfm with its default parameters, batch and length as stored")
    print("relative error = |found - expected| / |expected|; of parameter groups: names on one side only / all names")
    passed = report(compare_pretraining(path, stored.pretrain), SCHEDULE_TOLERANCE)
    if stored.finetune is None:
        print("it stores no fine-tuning")
        return passed
    print("full fine-tuning by the published schedule with paper_compat, batch, length and layer decay as stored")
    return (
        report(
            condensed(compare_finetuning(path, stored.finetune), SCHEDULE_TOLERANCE, "quantities"), SCHEDULE_TOLERANCE
        )
        and passed
    )


def condensed(rows: Sequence[Row], tolerance: float, what: str) -> list[Row]:
    """The rows above the tolerance, or one for all of them, where a deep network has many."""
    above = [row for row in rows if not row.within(tolerance)]
    if above or not rows:
        return above
    worst = max(rows, key=lambda row: row.error)
    return [replace(worst, quantity=f"{len(rows)} {what}", shape=(), note="the worst of them")]


def report(rows: Sequence[Row], tolerance: float) -> bool:
    """Print the table and its verdict."""
    width = max(len(row.quantity) for row in rows)
    print(f"{'quantity':<{width}}  {'shape':<16}{'max |exp.|':>11}{'difference':>12}{'relative error':>16}")
    for row in rows:
        shape = "x".join(map(str, row.shape))
        notes = [note for note in ("" if row.within(tolerance) else "ABOVE", row.note) if note]
        print(
            f"{row.quantity:<{width}}  {shape:<16}{row.largest:>11.4g}{row.difference:>12.2e}{row.error:>16.2e}"
            + "".join(f"  {note}" for note in notes)
        )
    above = sum(not row.within(tolerance) for row in rows)
    worst = max(rows, key=lambda row: row.error)
    print(f"{len(rows) - above} of {len(rows)} within {tolerance:g}; worst: {worst.quantity}, {worst.error:.2e}\n")
    return not above


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every file and return the exit status, that of the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="parity files; .json: schedule files")
    parser.add_argument("--schedule", action="append", default=[], type=Path, metavar="FILE", help="a schedule file")
    given = parser.parse_args(arguments)
    schedules = [path for path in given.files if path.suffix == ".json"] + given.schedule
    checks = [(check_tensors, path) for path in given.files if path.suffix != ".json"]
    checks += [(check_schedule, path) for path in schedules]
    if not checks:
        parser.error("give a parity file, or a schedule file with --schedule")
    status = 0
    for check, path in checks:
        try:
            status = max(status, 0 if check(path) else 1)
        except GfmError as error:
            print(f"parity: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
