"""`gfm arp`: average relative performance of the models of any results table in long form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gfm.errors import DataError
from gfm.evaluation.arp import relative_performance
from gfm.evaluation.bootstrap import bootstrap_intervals
from gfm.evaluation.columns import aligned
from gfm.evaluation.score_file import read_scores
from gfm.evaluation.scores import ERRORS
from gfm.output_file import write_whole
from gfm.params import Evaluate
from gfm.progress import say

COLUMNS = ("model", "task", "metric")
SEED = 0  # of the bootstrap: the same table gives the same interval
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ModelArp:
    """What `--json` holds of a model; percent."""

    arp: float | None  # None: it lacks scores that the baseline has
    low: float | None  # None: no interval, because a task has a single seed
    high: float | None
    contributions: dict[str, float]  # of the tasks; they sum to arp
    lacks: list[str]  # "task metric" that the baseline has


def arp_of_file(path: Path, baseline: str, out: Path | None) -> None:
    """Print ARP over `baseline`, its interval over seeds and each task's contribution; write them to `out` as JSON.

    The CSV has the columns model, task, metric, score (higher is better) and, where there are several, seed. Several
    metrics, or fractions, of a task are averaged within it first. A model without all of the baseline's scores has no
    ARP, and it is said what it lacks. DataError where the table cannot be used.
    """
    if out is not None and out.exists() and out.samefile(path):
        raise DataError(f"--json {out}: is the results table itself; give another file")
    table = _each_data_set_once(read_scores(path, COLUMNS, "score"))
    errors = [metric for metric in dict.fromkeys(table["metric"]) if metric.lower() in ERRORS]
    if errors:
        raise DataError(
            f"{path}: holds {errors[0]}, of which less is better; turn it into a score (1 - {errors[0]} / the targets' "
            "standard deviation, say) or leave its rows out"
        )
    table = _with_seeds(_with_fractions(table), path)
    results, lacking = _comparable(table, baseline, path)
    try:
        performance = relative_performance(results, baseline)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    intervals = bootstrap_intervals(
        results, baseline, resamples=Evaluate().bootstrap, confidence=CONFIDENCE, seed=SEED
    ).arp
    found = {}
    for model in dict.fromkeys(table["model"]):
        if model in lacking:
            found[model] = ModelArp(None, None, None, {}, lacking[model])
            continue
        own, interval = performance[model], intervals[model]
        low, high = (interval.low, interval.high) if interval else (None, None)
        found[model] = ModelArp(own.arp, low, high, own.contributions, [])
    say(_table(found, list(dict.fromkeys(results["task"])), baseline))
    for task, rows in results.groupby("task", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        if len(metrics) > 1:
            say(f"{task} is the mean of {', '.join(metrics)}; leave rows out to score it by one of them.")
    if out is not None:
        write_whole(out, json.dumps({model: asdict(entry) for model, entry in found.items()}, indent=1) + "\n")


def _each_data_set_once(table: pd.DataFrame) -> pd.DataFrame:
    """Without the tasks that repeat another one's data in another mode, as a column `dataset` says."""
    if "dataset" not in table:
        return table
    variant = (table["dataset"] != table["task"]) & table["dataset"].isin(set(table["task"]))
    if variant.any():
        say(f"left out, as variants of other tasks: {', '.join(dict.fromkeys(table['task'][variant]))}")
    return table[~variant].reset_index(drop=True)


def _with_fractions(table: pd.DataFrame) -> pd.DataFrame:
    """A column `fraction` (of the training data) makes another metric of each of its values."""
    if "fraction" not in table:
        return table
    return table.assign(metric=table["metric"] + " at " + table["fraction"].astype(str))


def _with_seeds(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Seeds as whole numbers, each once a model, task and metric, and the same ones for all metrics of a task."""
    named = [column for column in table if str(column).strip().lower() == "seed"]
    if not named:
        return table
    seeds = pd.to_numeric(table[named[0]], errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~(np.abs(seeds) < 2**53) | (seeds != np.floor(seeds)))
    if len(wrong):
        raise DataError(f"{path}: row {wrong[0] + 1}: seed = {table[named[0]].iloc[wrong[0]]!r} is no whole number")
    table = table.drop(columns=named).assign(seed=seeds.astype("int64"))
    twice = np.flatnonzero(table.duplicated([*COLUMNS, "seed"]))
    if len(twice):
        model, task, metric, seed = table.loc[twice[0], [*COLUMNS, "seed"]]
        raise DataError(f"{path}: {model} has two scores of {metric} on {task} with seed {seed}; leave one out")
    for (model, task), rows in table.groupby(["model", "task"], sort=False):
        by_metric = {str(metric): set(own["seed"]) for metric, own in rows.groupby("metric", sort=False)}
        if len({frozenset(own) for own in by_metric.values()}) > 1:
            lacking = min(by_metric, key=lambda metric: len(by_metric[metric]))
            raise DataError(
                f"{path}: {model} on {task} has fewer seeds of {lacking} than of its other metrics; add them"
            )
    return table


def _comparable(table: pd.DataFrame, baseline: str, path: Path) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The rows of models that have all of the baseline's scores, and what the other models lack."""
    models = list(dict.fromkeys(table["model"]))
    if baseline not in models:
        raise DataError(f"{path}: has no model {baseline}; --baseline can be one of {', '.join(models)}")
    own: dict[str, dict[tuple[str, str], None]] = {model: {} for model in models}
    for model, task, metric in zip(table["model"], table["task"], table["metric"], strict=True):
        own[model][task, metric] = None
    wanted = own[baseline]
    for model in models:
        extra = [pair for pair in own[model] if pair not in wanted]
        if extra:
            raise DataError(
                f"{path}: the baseline {baseline} has no {extra[0][1]} on {extra[0][0]}, which {model} has; add it, "
                "or leave those rows out"
            )
    lacking = {model: [" ".join(pair) for pair in wanted if pair not in own[model]] for model in models}
    lacking = {model: pairs for model, pairs in lacking.items() if pairs}
    kept = table[~table["model"].isin(list(lacking))]
    return kept.reset_index(drop=True), lacking


def _table(found: dict[str, ModelArp], tasks: list[str], baseline: str) -> str:
    rows = [["model", "ARP, %", "95 % interval", *tasks]]
    for model, entry in found.items():
        if entry.arp is None:
            continue
        bounds = "" if entry.low is None or entry.high is None else f"{entry.low:+.2f} to {entry.high:+.2f}"
        name = f"{model} (baseline)" if model == baseline else model
        rows.append([name, f"{entry.arp:+.2f}", bounds, *(f"{entry.contributions[task]:+.2f}" for task in tasks)])
    lines = aligned(rows)
    lines += [f"{model}: no ARP, it lacks {', '.join(entry.lacks)}" for model, entry in found.items() if entry.lacks]
    return "\n".join([*lines, "A task's column is what it adds to ARP."])
