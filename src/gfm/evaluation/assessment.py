"""Everything that is said about the compared models, computed once: for the report, the figures and the terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from gfm.evaluation.arp import RelativePerformance, UndefinedARP, relative_performance
from gfm.evaluation.bootstrap import Intervals, bootstrap_intervals
from gfm.evaluation.scores import primary_only
from gfm.params import Params


@dataclass(frozen=True)
class Assessment:
    """Scores by task and model, ARP and intervals, all on each task's primary metric of the test split."""

    models: list[str]
    baseline: str
    confidence: float
    metrics: dict[str, str]  # task -> primary metric
    counted: list[str]  # tasks that ARP is the mean of: each data set once
    means: dict[tuple[str, str], float]  # (task, model) -> mean over seeds
    seeds: dict[tuple[str, str], int]  # (task, model) -> number of seeds
    performance: dict[str, RelativePerformance]  # empty where ARP is not defined
    undefined: str  # why it is not
    intervals: Intervals
    too_small: list[str]  # tasks that no conclusion may be drawn from; they count in ARP as the others do
    firm: tuple[dict[str, RelativePerformance], Intervals] | None  # without them; None: no ARP, or none to leave out

    @property
    def level(self) -> str:
        return f"{100 * self.confidence:g} %"

    @property
    def tasks(self) -> list[str]:
        return list(self.metrics)

    def best(self, task: str) -> list[str]:
        """The models with the highest mean on a task (several when they tie)."""
        top = max(self.means[task, model] for model in self.models)
        return [model for model in self.models if self.means[task, model] == top]


def assess(params: Params, results: pd.DataFrame, metrics: dict[str, str]) -> Assessment:
    """Judge a long results table by the primary `metrics` of its tasks.

    Where the baseline scores zero on a task there is no ARP, and everything else. Raises DataError where models were
    not scored on the same tasks (see `relative_performance`).
    """
    primary = primary_only(results, metrics)
    counted = [task for task in metrics if params.tasks[task].variant_of is None]
    variants = primary[~primary["task"].isin(counted)]
    deciding = primary[primary["task"].isin(counted)]
    cells = {
        (task, model): primary[(primary["task"] == task) & (primary["model"] == model)]["score"]
        for task in metrics
        for model in map(str, primary["model"].unique())
    }
    baseline, confidence = params.evaluate.baseline, params.evaluate.confidence
    too_small = [task for task in counted if task in params.evaluate.too_small]

    def spread(table: pd.DataFrame) -> Intervals:
        return bootstrap_intervals(
            table, baseline, resamples=params.evaluate.bootstrap, confidence=confidence, seed=params.seed
        )

    performance, undefined = {}, ""
    try:
        performance = relative_performance(deciding, baseline)
    except UndefinedARP as error:
        undefined = str(error)
    firm = None
    if performance and 0 < len(too_small) < len(counted):
        others = deciding[~deciding["task"].isin(too_small)]
        firm = relative_performance(others, baseline), spread(others)
    intervals = spread(deciding)
    if not variants.empty:
        intervals = replace(intervals, scores=intervals.scores | spread(variants).scores)
    return Assessment(
        models=[str(model) for model in primary["model"].unique()],
        baseline=baseline,
        confidence=confidence,
        metrics=metrics,
        counted=counted,
        means={cell: float(scores.mean()) for cell, scores in cells.items()},
        seeds={cell: len(scores) for cell, scores in cells.items()},
        performance=performance,
        undefined=undefined,
        intervals=intervals,
        too_small=too_small,
        firm=firm,
    )
