"""What a search leaves for people and for the fine-tuning: best.json, trials.csv, trials.png."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from gfm.downstream.search import Found, Subject

BEST = "best.json"
NOTE = "validation alone: no trial reads a test image"
COLUMNS = ("trial", "lr", "batch_size", "val_score", "epoch", "seconds", "kwh", "kg_co2eq", "reason")


def write_search(folder: Path, subject: Subject, found: Found, origin: Mapping[str, Any]) -> None:
    """Write the best values with where they come from, every trial as a row, and a picture of both."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {**best(subject, found), "provenance": {**origin, "seed": subject.search.seed}}
    (folder / BEST).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for trial in found.trials:
            score = "" if trial.score is None else round(trial.score, 6)
            spent = (round(trial.energy.seconds, 3), trial.energy.kwh, trial.energy.kg_co2eq)
            table.writerow((trial.number, trial.lr, trial.batch_size, score, trial.epoch, *spent, trial.reason))
    _draw(folder / "trials.png", subject, found)


def best(subject: Subject, found: Found) -> dict[str, Any]:
    """The record of a search: what was chosen, by what, from which space, with which energy."""
    settings, chosen = found.settings, found.best
    return {
        "task": subject.task_name,
        "model": subject.model_name,
        "lr": chosen.lr,
        **({} if settings.full.schedule else {"encoder_lr": settings.encoder_lr}),
        "batch_size": chosen.batch_size,
        "metric": found.metric,
        "scored_on": NOTE,
        "score": chosen.score,
        "trial": chosen.number,
        "trials": len(found.trials),
        "without_score": sum(trial.score is None for trial in found.trials),
        "space": subject.search.model_dump(mode="json"),
        "sampler": f"TPE of Optuna {found.optuna}",
        "energy": found.energy.as_dict(),
        "run_id": found.run_id,
    }


def in_words(found: Found) -> str:
    """The choice in one line."""
    lost = sum(trial.score is None for trial in found.trials)
    beside = f", {lost} of them without a score" if lost else ""
    return (
        f"lr {found.best.lr:g}, batch size {found.best.batch_size}: validation {found.metric} "
        f"{found.best.score:.4f}, the best of {len(found.trials)} trials{beside}"
    )


def _draw(path: Path, subject: Subject, found: Found) -> None:
    """Score over learning rate, one marker a batch size; trials without a score along the lower edge."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    scored = [(trial.lr, trial.score, trial.batch_size) for trial in found.trials if trial.score is not None]
    for marker, size in zip(cycle("os^Dv<>pP*"), subject.search.batch_sizes, strict=False):
        own = [(lr, score) for lr, score, batch_size in scored if batch_size == size]
        if own:
            axis.scatter(
                [lr for lr, _ in own], [score for _, score in own], marker=marker, s=32, label=f"batch size {size}"
            )
    lost = [trial.lr for trial in found.trials if trial.score is None]
    if lost:
        lowest = min(score for _, score, _ in scored)
        axis.scatter(lost, [lowest] * len(lost), marker="x", color="#c1121f", s=32, label="without a score")
    best_score = max(score for _, score, _ in scored)
    axis.scatter([found.best.lr], [best_score], s=160, facecolors="none", edgecolors="#444444", label="best")
    axis.set(xscale="log", xlabel="learning rate of the head", ylabel=f"{found.metric} (validation)")
    axis.xaxis.set_minor_formatter(NullFormatter())  # of a narrow range they would stand on one another
    axis.set_title(f"{subject.name}: {len(found.trials)} trials", fontsize=11)
    axis.legend(fontsize=8, frameon=False)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
