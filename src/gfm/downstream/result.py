"""What fine-tuning one model on one task gives, seed by seed, and the files that hold it."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIGITS = 6  # of scores and losses in the tables


@dataclass(frozen=True, slots=True)
class Reference:
    """What needs no training: its name, and its scores on the test split."""

    name: str
    test: dict[str, float]


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One training from one seed; the test scores belong to the epoch that validation chose."""

    seed: int
    epoch: int
    val: dict[str, float]
    test: dict[str, float]
    history: list[dict[str, float]]
    samples: int  # training samples seen
    parameters: int  # of encoder, adapters and head
    trained: int  # of these, how many learned
    chosen: dict[str, int]  # settings other than the epoch that validation chose
    reference: Reference | None = None  # of the first seed: it is the same for all


def write_scores(path: Path, model: str, task: str, results: Sequence[SeedResult]) -> None:
    """scores.csv: model, task, metric, score, seed, split; the primary metric first."""
    rows = [
        (model, task, metric, round(score, DIGITS), result.seed, split)
        for result in results
        for split, scores in (("val", result.val), ("test", result.test))
        for metric, score in scores.items()
    ]
    _write(path, ("model", "task", "metric", "score", "seed", "split"), rows)


def write_history(path: Path, results: Sequence[SeedResult]) -> None:
    """history.csv: seed, epoch, step, train_loss, val_score, one row an epoch."""
    columns = ("epoch", "step", "train_loss", "val_score")
    rows = [
        (result.seed, *(round(entry[column], DIGITS) for column in columns))
        for result in results
        for entry in result.history
    ]
    _write(path, ("seed", *columns), rows)


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """run.json: where the scores come from."""
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def mean_and_spread(results: Sequence[SeedResult], metric: str) -> str:
    """The metric's mean over seeds with its standard deviation, as text."""
    scores = [result.test[metric] for result in results]
    spread = f" (sd {statistics.stdev(scores):.3f})" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.3f}{spread}"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
