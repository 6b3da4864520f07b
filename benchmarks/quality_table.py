"""The tables of `benchmarks/quality.py`: means over seeds, paired differences to `gfm`, and what these show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t  # type: ignore[import-untyped]

from gfm.evaluation.bootstrap import Interval
from quality_plan import REFERENCE, SAMPLES, TIME, UNTRAINED

ALL_TASKS = "all tasks"  # the mean of a run's scores
TITLES = {
    SAMPLES: "The same samples: every recipe for as many epochs as `gfm`",
    TIME: "The same wall clock: every recipe for as many seconds as `gfm`, building its cache counted in",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """One pretraining of one seed and its test scores; without pretraining, epochs and costs are 0."""

    recipe: str
    budgets: tuple[str, ...]  # that it stands for
    seed: int
    epochs: int
    seconds: float
    samples: int
    kwh: float | None  # None: not measured
    scores: Mapping[str, float]  # by task, in points of 100


@dataclass(frozen=True, slots=True)
class Line:
    """A recipe under a budget on a task; differences are to the reference's run of the same budget and seed."""

    budget: str
    recipe: str
    task: str
    mean: float
    interval: Interval | None  # None: one seed says nothing about the spread
    difference: float | None  # None: the reference itself
    difference_interval: Interval | None
    verdict: str


def t_interval(values: Sequence[float], confidence: float) -> Interval | None:
    """Student's interval of the mean of normal values; None for a single one.

    Not the bootstrap of the report: over 3 seeds that is far too narrow (see gfm.evaluation.verdict).
    """
    if len(values) < 2:
        return None
    quantile = float(student_t.ppf((1 + confidence) / 2, len(values) - 1))
    middle, half = statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(middle - half, middle + half)


def verdict(interval: Interval | None, margin: float) -> str:
    """What the interval of a difference shows; a wide one that holds 0 shows nothing, equality least of all."""
    if interval is None:
        return "one seed, nothing shown"
    if -margin <= interval.low and interval.high <= margin:
        return f"equal within {margin:g}"
    if interval.low > 0:
        return "better"
    if interval.high < 0:
        return "worse"
    return "no difference shown"


def summarise(runs: Sequence[Trained], *, margin: float, confidence: float) -> list[Line]:
    """A line for each budget, recipe and task, and for the mean over tasks; recipes and tasks in the runs' order."""
    lines = []
    for budget in (SAMPLES, TIME):
        of_budget = [run for run in runs if budget in run.budgets]
        recipes = list(dict.fromkeys(run.recipe for run in of_budget))
        for task in [*of_budget[0].scores, ALL_TASKS] if of_budget else []:
            found = {
                recipe: {run.seed: _score(run, task) for run in of_budget if run.recipe == recipe} for recipe in recipes
            }
            lines += [_line(budget, recipe, task, found, margin, confidence) for recipe in recipes]
    return lines


def _score(run: Trained, task: str) -> float:
    return statistics.fmean(run.scores.values()) if task == ALL_TASKS else run.scores[task]


def _line(
    budget: str, recipe: str, task: str, found: Mapping[str, Mapping[int, float]], margin: float, confidence: float
) -> Line:
    own, reference = found[recipe], found[REFERENCE]
    interval = t_interval(list(own.values()), confidence)
    if recipe == REFERENCE:
        return Line(budget, recipe, task, statistics.fmean(own.values()), interval, None, None, "the reference")
    differences = [score - reference[seed] for seed, score in own.items() if seed in reference]
    between = t_interval(differences, confidence)
    return Line(
        budget,
        recipe,
        task,
        statistics.fmean(own.values()),
        interval,
        statistics.fmean(differences),
        between,
        verdict(between, margin),
    )


def markdown(runs: Sequence[Trained], lines: Sequence[Line], *, margin: float, confidence: float) -> str:
    """Per budget a table of costs and scores, and one of the differences with what they show."""
    compared = [line for line in lines if line.difference is not None]
    parts = [
        f"Test scores in points of 100: mean over seeds, and the half width of its {100 * confidence:g} % interval "
        f"(Student's t). Differences are to `{REFERENCE}` under the same budget and with the same seed. \"Equal within "
        f'{margin:g}" is said only where the whole interval of the difference lies within ±{margin:g} point, "better" '
        'and "worse" only where it leaves out 0. Each line is judged alone: of the '
        f"{len(compared)} below, about {(1 - confidence) * len(compared):.1f} would leave out 0 by chance."
    ]
    for budget in dict.fromkeys(line.budget for line in lines):
        of_budget = [line for line in lines if line.budget == budget]
        parts += [f"## {TITLES[budget]}", _scores(runs, of_budget, budget), _differences(of_budget)]
    return "\n\n".join(parts) + "\n"


def _scores(runs: Sequence[Trained], lines: Sequence[Line], budget: str) -> str:
    tasks = list(dict.fromkeys(line.task for line in lines))
    rows = [["recipe", "seeds", "epochs", "images seen", "seconds", "range", "Wh", *tasks]]
    for recipe in dict.fromkeys(line.recipe for line in lines):
        own = [run for run in runs if run.recipe == recipe and budget in run.budgets]
        seconds = [run.seconds for run in own]
        cells = {line.task: _with_half(line) for line in lines if line.recipe == recipe}
        if recipe == UNTRAINED:
            costs = ["0", "0", "0", "", "0"]
        else:
            costs = [
                "/".join(str(epochs) for epochs in sorted({run.epochs for run in own})),
                f"{statistics.fmean(run.samples for run in own):,.0f}",
                f"{statistics.fmean(seconds):.0f}",
                f"{min(seconds):.0f}-{max(seconds):.0f}",
                _watt_hours([run.kwh for run in own]),
            ]
        rows.append([f"`{recipe}`", str(len(own)), *costs, *(cells[task] for task in tasks)])
    return rows_in_markdown(rows)


def _differences(lines: Sequence[Line]) -> str:
    rows = [["recipe", "task", f"points over `{REFERENCE}`", "interval", "verdict"]]
    compared = [line for line in lines if line.difference is not None]
    for line in sorted(compared, key=lambda line: [other.recipe for other in compared].index(line.recipe)):
        between = line.difference_interval
        bounds = f"{between.low:+.1f} to {between.high:+.1f}" if between else "none"
        rows.append([f"`{line.recipe}`", line.task, f"{line.difference:+.1f}", bounds, line.verdict])
    return rows_in_markdown(rows)


def _with_half(line: Line) -> str:
    return f"{line.mean:.1f}" + (f" ± {line.interval.half:.1f}" if line.interval else "")


def _watt_hours(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{1000 * statistics.fmean(known):.2f}" if len(known) == len(values) else "not measured"


def rows_in_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
