"""How far scores and ARP move with the seed: percentile bootstrap intervals over the fine-tuning seeds.

Within a task, models that were run with the same set of seeds are resampled together: a seed fixes the head's first
weights and the order of the data, so what is common to a seed cancels in the comparison. Models with other seeds, and
different tasks, are resampled on their own. The interval covers the seeds only, not the choice of test areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gfm.evaluation.arp import task_means


@dataclass(frozen=True)
class Interval:
    """Bounds of a percentile interval, in the unit of what it bounds."""

    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Intervals:
    """Intervals of ARP by model (percent) and of the mean score by (task, model); None where there is none."""

    arp: dict[str, Interval | None]
    scores: dict[tuple[str, str], Interval | None]
    reasons: dict[str, str]  # why a model has no interval


def bootstrap_intervals(
    results: pd.DataFrame, baseline: str, *, resamples: int, confidence: float, seed: int
) -> Intervals:
    """Percentile intervals over the seeds of a long results table (model, task, metric, score, seed).

    A model has no ARP interval when it or the baseline has a single seed on some task, because one seed says nothing
    about the spread, or when the baseline scores zero with some seed. Same table and seed, same intervals.
    """
    means = task_means(results, baseline)
    draws: dict[tuple[str, str], np.ndarray] = {}
    reasons: dict[str, str] = {}
    random = np.random.default_rng(seed)
    for task in map(str, means.index):
        indices: dict[tuple[int, ...], np.ndarray] = {}
        for model in map(str, means.columns):
            scores = _by_seed(results, task, model)
            if len(scores) < 2:
                reasons.setdefault(model, f"one seed on {task}")
                continue
            seeds = tuple(int(value) for value in scores.index)
            if seeds not in indices:
                indices[seeds] = random.integers(len(seeds), size=(resamples, len(seeds)))
            draws[task, model] = scores.to_numpy()[indices[seeds]].mean(axis=1)
    if baseline not in reasons:
        zero = [task for task in map(str, means.index) if draws[task, baseline].min() <= 0]
        if zero:
            reasons[baseline] = f"{baseline} scores zero with some seed on {zero[0]}"
    scored = {
        (task, model): _interval(draws[task, model], confidence) if (task, model) in draws else None
        for task in map(str, means.index)
        for model in map(str, means.columns)
    }
    arp: dict[str, Interval | None] = {}
    for model in map(str, means.columns):
        if baseline in reasons:
            reasons.setdefault(model, f"{baseline}: {reasons[baseline]}")
        if model in reasons:
            arp[model] = None
            continue
        gains = [100 * (draws[task, model] / draws[task, baseline] - 1) for task in map(str, means.index)]
        arp[model] = _interval(np.mean(gains, axis=0), confidence)
    return Intervals(arp, scored, reasons)


def _by_seed(results: pd.DataFrame, task: str, model: str) -> pd.Series[float]:
    rows = results[(results["task"] == task) & (results["model"] == model)]
    if "seed" not in rows:
        return pd.Series([float(rows["score"].mean())], index=[0])
    wide = rows.pivot_table(index="seed", columns="metric", values="score").sort_index()
    # A task's metrics are averaged seed by seed, so a seed that lacks one of them cannot take part.
    return wide.dropna().mean(axis=1)


def _interval(values: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
