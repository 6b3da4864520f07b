"""Everything that is said about the compared models, computed once: for the report, the figures and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gfm.evaluation.arp import RelativePerformance, relative_performance
from gfm.evaluation.bootstrap import Intervals, bootstrap_intervals
from gfm.evaluation.scores import primary_only
from gfm.params import Params


@dataclass(frozen=True)
class Assessment:
    """Scores by task and model, ARP and intervals, all on each task's primary metric of the test split."""

    baseline: str
    confidence: float
    metrics: dict[str, str]  # task -> primary metric
    means: dict[tuple[str, str], float]  # (task, model) -> mean over seeds
    seeds: dict[tuple[str, str], int]  # (task, model) -> number of seeds
    performance: dict[str, RelativePerformance]
    intervals: Intervals
    too_small: list[str]  # tasks that no conclusion may be drawn from; they count in ARP as the others do
    firm: tuple[dict[str, RelativePerformance], Intervals] | None  # without them; None: there are none, or no others

    @property
    def level(self) -> str:
        return f"{100 * self.confidence:g} %"

    @property
    def models(self) -> list[str]:
        return list(self.performance)

    @property
    def tasks(self) -> list[str]:
        return list(self.metrics)

    def best(self, task: str) -> list[str]:
        """The models with the highest mean on a task (several when they tie)."""
        top = max(self.means[task, model] for model in self.models)
        return [model for model in self.models if self.means[task, model] == top]


def assess(params: Params, results: pd.DataFrame, metrics: dict[str, str]) -> Assessment:
    """Judge a long results table by the primary `metrics` of its tasks.

    Raises DataError where ARP cannot be computed (see `relative_performance`).
    """
    primary = primary_only(results, metrics)
    cells = {
        (task, model): primary[(primary["task"] == task) & (primary["model"] == model)]["score"]
        for task in metrics
        for model in map(str, primary["model"].unique())
    }
    baseline, confidence = params.evaluate.baseline, params.evaluate.confidence
    too_small = [task for task in metrics if params.tasks[task].too_small]

    def judge(table: pd.DataFrame) -> tuple[dict[str, RelativePerformance], Intervals]:
        return relative_performance(table, baseline), bootstrap_intervals(
            table, baseline, resamples=params.evaluate.bootstrap, confidence=confidence, seed=params.seed
        )

    performance, intervals = judge(primary)
    some = 0 < len(too_small) < len(metrics)
    return Assessment(
        baseline=baseline,
        confidence=confidence,
        metrics=metrics,
        means={cell: float(scores.mean()) for cell, scores in cells.items()},
        seeds={cell: len(scores) for cell, scores in cells.items()},
        performance=performance,
        intervals=intervals,
        too_small=too_small,
        firm=judge(primary[~primary["task"].isin(too_small)]) if some else None,
    )
