"""The pictures that other stages drew, for the report: predictions, reconstructions, trials of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfm import layout
from gfm.evaluation.assessment import Assessment
from gfm.evaluation.pictures import picture_address
from gfm.evaluation.scores import TaskRun

PICTURE_BYTES = 4_000_000  # of the page, for all of them together


def report_pictures(assessment: Assessment, runs: list[TaskRun]) -> dict[str, list[dict[str, Any]]]:
    """Predictions by task, reconstructions by encoder, searches by run, each picture with its share of the page."""
    predicted = {
        (task, model): layout.task_folder(task, model) / "predictions.png"
        for task in assessment.tasks
        for model in assessment.models
    }
    rebuilt = {model: layout.encoder_folder(model) / "reconstructions.png" for model in assessment.models}
    searched = [(run, layout.task_folder(run.task, run.model) / "search/trials.png") for run in runs if run.search]
    drawn = [*predicted.values(), *rebuilt.values(), *(path for _, path in searched)]
    there = [path for path in drawn if path.exists()]
    budget = PICTURE_BYTES // max(len(there), 1)

    def address(path: Path) -> str:
        return picture_address(path, budget) if path.exists() else ""

    return {
        "predictions": [
            {
                "task": task,
                "pictures": [{"model": m, "address": address(predicted[task, m])} for m in assessment.models],
            }
            for task in assessment.tasks
        ],
        "reconstructions": [
            {"model": model, "address": address(path)} for model, path in rebuilt.items() if path.exists()
        ],
        "searches": [_search(run, address(path)) for run, path in searched],
    }


def _search(run: TaskRun, address: str) -> dict[str, Any]:
    found = run.search
    return {
        "task": run.task,
        "model": run.model,
        "lr": f"{found['lr']:g}",
        "batch_size": found["batch_size"],
        "metric": found["metric"],
        "score": f"{found['score']:.3f}",
        "trials": found["trials"],
        "without_score": found["without_score"],
        "address": address,
    }
