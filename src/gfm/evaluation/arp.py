"""Average relative performance: how much better a model is than the baseline, averaged over tasks (GFM, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gfm.errors import DataError


class UndefinedARP(DataError):
    """The baseline scores zero or less on a task, so that nothing is relative to it."""


@dataclass(frozen=True)
class RelativePerformance:
    """ARP of one model in percent, and what each task adds to it (the contributions sum to `arp`)."""

    arp: float
    contributions: dict[str, float]


def relative_performance(results: pd.DataFrame, baseline: str) -> dict[str, RelativePerformance]:
    """ARP(M) = mean over tasks of (score(M) - score(baseline)) / score(baseline), in percent.

    `results` is a long table with the columns model, task, metric, score and, if there are several, seed; higher scores
    are better. Seeds are averaged first, then the metrics of a task, then the tasks. A contribution is a task's
    relative gain divided by the number of tasks. Models and tasks keep the table's order.

    Raises UndefinedARP when the baseline scores zero or less on a task, DataError when it is not in the table, or when
    a model lacks a task or a metric that the baseline has, or the other way round.
    """
    means = task_means(results, baseline)
    reference = means[baseline]
    for task, score in zip(means.index, reference.to_numpy(), strict=True):
        if score <= 0:
            raise UndefinedARP(
                f"the baseline {baseline} scores {score:.4g} on task {task}, and ARP divides by it; "
                "choose another baseline, train it longer, or leave the task out"
            )
    gains = 100 * (means.sub(reference, axis=0)).div(reference, axis=0) / len(means)
    return {
        str(model): RelativePerformance(
            arp=float(gains[model].sum()),
            contributions={str(task): float(gain) for task, gain in gains[model].items()},
        )
        for model in gains
    }


def task_means(results: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Mean score of every task (rows) and model (columns); DataError where a model or the baseline lacks one."""
    models = [str(model) for model in results["model"].unique()]
    tasks = [str(task) for task in results["task"].unique()]
    if baseline not in models:
        raise DataError(f"no scores of the baseline {baseline}; it can be one of {', '.join(models)}")
    metrics = results.groupby(["task", "metric", "model"], sort=False)["score"].mean().unstack("model")[models]
    rows, columns = np.nonzero(~np.isfinite(metrics.to_numpy()))
    if len(rows):
        task, metric = metrics.index.to_list()[rows[0]]
        raise DataError(
            f"{models[columns[0]]} has no {metric} score on task {task}, which other models have; "
            f"ARP compares models on the same tasks: fine-tune it, or leave it out of `models`"
        )
    return metrics.groupby(level="task", sort=False).mean().loc[tasks]
