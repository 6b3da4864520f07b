"""Read what every fine-tuning left behind and put the test scores into one long table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gfm import layout
from gfm.errors import DataError
from gfm.params import Params

COLUMNS = ["model", "task", "metric", "score", "seed"]
ERRORS = ("rmse", "mae")  # metrics of which less is better: they stand in scores.csv, never in a table to compare by


@dataclass(frozen=True)
class TaskRun:
    """One model fine-tuned on one task: its scores (model, task, metric, score, seed, split) and its record."""

    task: str
    model: str
    scores: pd.DataFrame
    record: dict[str, Any]
    dataset: str  # the task whose data it is: this one, or the one that this is a variant of

    @property
    def mode(self) -> str:
        """How the model was adapted."""
        return str(self.record.get("mode", ""))

    @property
    def search(self) -> dict[str, Any]:
        """What a search found for it; empty where there was none."""
        return dict(self.record.get("search") or {})

    @property
    def primary_metric(self) -> str:
        return str(self.record["primary_metric"])


def read_runs(params: Params) -> list[TaskRun]:
    """Every task x model of the parameters, in their order.

    Raises DataError naming the first run that is missing, broken, or scored by another metric than its task's others.
    """
    runs = [_read_run(params, task, model) for task in params.tasks for model in params.models]
    metrics: dict[str, TaskRun] = {}
    for run in runs:
        first = metrics.setdefault(run.task, run)
        if run.primary_metric != first.primary_metric:
            raise DataError(
                f"{layout.task_folder(run.task, run.model)}: scored by {run.primary_metric}, but {first.model} by "
                f"{first.primary_metric}; run `{_remedy(run.task, run.model, force=True)}`"
            )
    return runs


def results_table(runs: list[TaskRun]) -> pd.DataFrame:
    """The test scores as a long table (model, task, metric, score, seed, mode, dataset), primary metrics first.

    `dataset` is the task whose data it is: several tasks of one are the same data in several modes.
    More is better of all of them: errors stay in the runs' own tables.
    """
    tables = []
    for run in runs:
        test = run.scores[(run.scores["split"] == "test") & ~run.scores["metric"].isin(ERRORS)]
        # A stable sort on "is not the primary metric" keeps the others in the order they were written.
        order = np.argsort((test["metric"] != run.primary_metric).to_numpy(), kind="stable")
        tables.append(test.iloc[order][COLUMNS].assign(mode=run.mode, dataset=run.dataset))
    return pd.concat(tables, ignore_index=True)


def as_csv(results: pd.DataFrame) -> str:
    """The table as results.csv holds it."""
    return results.to_csv(index=False, lineterminator="\n", float_format="%.6f")


def primary_metrics(runs: list[TaskRun]) -> dict[str, str]:
    """The metric that each task is judged by."""
    return {run.task: run.primary_metric for run in runs}


def references(runs: list[TaskRun]) -> dict[str, str]:
    """Task -> name and primary score of what needs no training, for tasks whose kind names it."""
    found = {}
    for run in runs:
        reference = run.record.get("reference")
        if reference:
            found[run.task] = f"{reference['name']} {reference['test'][run.primary_metric]:.3f}"
    return found


def primary_only(results: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """The rows of a long results table that hold each task's primary metric."""
    return results[results["metric"] == results["task"].map(metrics)].reset_index(drop=True)


def _read_run(params: Params, task: str, model: str) -> TaskRun:
    folder = layout.task_folder(task, model)
    record = read_record(folder / "run.json", _remedy(task, model))
    if "primary_metric" not in record:
        raise DataError(f"{folder / 'run.json'}: has no primary_metric; run `{_remedy(task, model, force=True)}`")
    scores = _read_scores(folder / "scores.csv", task, model, str(record["primary_metric"]))
    return TaskRun(task, model, scores, record, dataset=params.tasks[task].variant_of or task)


def _read_scores(path: Path, task: str, model: str, primary: str) -> pd.DataFrame:
    again = f"run `{_remedy(task, model, force=True)}`"
    try:
        # Names such as `NA` or `none` are names, not missing values.
        scores = pd.read_csv(path, keep_default_na=False, na_values={"score": ["", "nan", "NaN"]})
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `{_remedy(task, model)}`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table of scores ({' '.join(str(error).split())}); {again}") from None
    lacking = [column for column in [*COLUMNS, "split"] if column not in scores]
    if lacking:
        raise DataError(f"{path}: lacks the columns {', '.join(lacking)}; {again}")
    if not pd.api.types.is_numeric_dtype(scores["score"]):
        raise DataError(f"{path}: holds scores that are not numbers; {again}")
    scores = scores.astype({"model": str, "task": str, "metric": str, "split": str, "score": float, "seed": int})
    chosen = scores[(scores["metric"] == primary) & (scores["split"] == "test")]
    if chosen.empty:
        raise DataError(f"{path}: has no test score of {primary}; {again}")
    if not np.isfinite(chosen["score"].to_numpy()).all():
        raise DataError(f"{path}: holds a test score of {primary} that is not a number; {again}")
    if chosen["seed"].duplicated().any():
        raise DataError(f"{path}: holds two test scores of {primary} for one seed; {again}")
    scores["model"], scores["task"] = model, task
    return scores


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """A run.json. Raises DataError naming the file and the command that makes it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `{remedy}`") from None
    except ValueError:
        raise DataError(f"{path}: not valid JSON; run `{remedy}`") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}: must hold a JSON object; run `{remedy}`")
    return record


def _remedy(task: str, model: str, *, force: bool = False) -> str:
    return f"dvc repro {'-f ' if force else ''}finetune@{task}-{model}"
