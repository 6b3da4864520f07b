"""Models in several adaptation modes, from the fine-tunings that a workspace holds: tables in Markdown, and pictures.

    python benchmarks/adaptation_table.py [WORKSPACE] [--differences gfm teacher teacher random] [--pictures FOLDER]

Every data set that variants (`variant_of`) repeat gets a table of scores and costs, and one of differences, which are
taken seed by seed. Intervals are the report's: bootstrap over the seeds; the verdict goes by Student's t, because over
three seeds the bootstrap is too narrow. --pictures copies the prediction pictures of one model in every mode, in
256 colours: less than half of the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from gfm import layout
from gfm.errors import GfmError
from gfm.evaluation.assessment import assess
from gfm.evaluation.bootstrap import Interval, bootstrap_intervals
from gfm.evaluation.energy import costs
from gfm.evaluation.scores import TaskRun, primary_metrics, primary_only, read_runs, results_table
from gfm.params import PARAMS_FILE, Params, load
from gfm.tracking.amount import amount
from quality_table import rows_in_markdown, t_interval, verdict

MARGIN = 0.01  # of the score: below it models count as equal, where the interval allows to say so
COLOURS = 256  # of a picture; fewer, or another size, and the colours of the legend would suffer


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more `model` scores than `other` in one mode, seed by seed."""

    mode: str
    model: str
    other: str
    values: list[float]
    bootstrap: Interval | None
    student: Interval | None
    verdict: str


def main(given: Sequence[str] | None = None) -> int:
    """Print the tables; 2 where a run is missing or the command line is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", nargs="?", type=Path, default=Path(), help="the current folder")
    parser.add_argument("--differences", nargs="+", metavar="MODEL", help="pairs (every model with the baseline)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write a picture a task here")
    parser.add_argument("--of", metavar="MODEL", help="whose pictures (the baseline's)")
    args = parser.parse_args(given)
    pictures = args.pictures and args.pictures.resolve()
    try:
        with contextlib.chdir(args.workspace):
            params = load(PARAMS_FILE)
            runs = read_runs(params)
            pairs = _pairs(params, args.differences)
            print("\n\n".join(tables(params, runs, pairs)))
            if pictures:
                write_pictures(params, args.of or params.evaluate.baseline, pictures)
    except (GfmError, OSError, ValueError) as error:
        print(f"adaptation_table: {error}", file=sys.stderr)
        return 2
    return 0


def _pairs(params: Params, given: list[str] | None) -> list[tuple[str, str]]:
    if given is None:
        baseline = params.evaluate.baseline
        return [(model, baseline) for model in params.models if model != baseline]
    unknown = [name for name in given if name not in params.models]
    if unknown or len(given) % 2:
        raise ValueError(f"--differences takes pairs of {', '.join(params.models)}, not {' '.join(given)}")
    return list(zip(given[::2], given[1::2], strict=True))


def tables(params: Params, runs: list[TaskRun], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Title, scores and differences of every data set that has variants."""
    varied = [name for name in params.tasks if any(task.variant_of == name for task in params.tasks.values())]
    if not varied:
        raise ValueError("no task is a variant of another; declare the modes with variant_of (docs/benchmark.md)")
    results, metrics = results_table(runs), primary_metrics(runs)
    scores, intervals = primary_only(results, metrics), assess(params, results, metrics).intervals.scores
    parts = []
    for dataset in varied:
        own = scores[scores["dataset"] == dataset]
        metric = str(own["metric"].iloc[0])
        found = differences(params, own, pairs)
        parts += [f"### {dataset}, {metric}", _scores(params, own, runs, intervals), _differences(found)]
    return parts


def differences(params: Params, scores: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """Every pair in every mode of a data set; `scores` are its rows of the results table, of one metric."""
    found = []
    for mode in scores["mode"].unique():
        of_mode = scores[scores["mode"] == mode].pivot_table(index="seed", columns="model", values="score")
        for model, other in pairs:
            values = (of_mode[model] - of_mode[other]).dropna()
            student = t_interval(list(values), params.evaluate.confidence)
            found.append(
                Difference(
                    str(mode),
                    model,
                    other,
                    list(values),
                    _bootstrap(params, values),
                    student,
                    verdict(student, MARGIN),
                )
            )
    return found


def _bootstrap(params: Params, values: pd.Series[float]) -> Interval | None:
    """The report's interval of a mean over seeds, here of differences."""
    table = pd.DataFrame(
        {"model": "difference", "task": "t", "metric": "m", "seed": values.index, "score": values.to_numpy()}
    )
    settings = params.evaluate
    found = bootstrap_intervals(
        table, "difference", resamples=settings.bootstrap, confidence=settings.confidence, seed=params.seed
    )
    return found.scores["t", "difference"]


def _scores(
    params: Params,
    scores: pd.DataFrame,
    runs: list[TaskRun],
    intervals: Mapping[tuple[str, str], Interval | None],
) -> str:
    spent = {part.place: part for cost in costs(params, runs).values() for part in cost.parts}
    head = ["mode", "model", "mean", "sd", "interval", "trained", "share", "s a training", "kg CO2eq a training"]
    rows = [head]
    for task in scores["task"].unique():
        of_task = scores[scores["task"] == task]
        for run in (run for run in runs if run.task == task):
            values = of_task[of_task["model"] == run.model]["score"]
            part, interval = spent[str(layout.task_folder(run.task, run.model))], intervals[task, run.model]
            kg = None if part.kg_co2eq is None else part.kg_co2eq / len(values)
            rows.append(
                [
                    run.mode,
                    f"`{run.model}`",
                    f"{values.mean():.3f}",
                    f"{values.std():.3f}" if len(values) > 1 else "",
                    f"{interval.low:.3f} to {interval.high:.3f}" if interval else "none",
                    f"{run.record['trained_parameters']:,}",
                    f"{run.record['trained_share']:.1%}",
                    f"{part.seconds / len(values):.0f}",
                    amount(kg),
                ]
            )
    return rows_in_markdown(rows)


def _differences(found: Sequence[Difference]) -> str:
    rows = [["mode", "difference", "by seed", "mean", "bootstrap", "Student's t", "shown"]]
    for entry in found:
        rows.append(
            [
                entry.mode,
                f"`{entry.model}` - `{entry.other}`",
                ", ".join(f"{value:+.3f}" for value in entry.values),
                f"{statistics.fmean(entry.values):+.3f}",
                *(f"{i.low:+.3f} to {i.high:+.3f}" if i else "none" for i in (entry.bootstrap, entry.student)),
                entry.verdict,
            ]
        )
    return rows_in_markdown(rows)


def write_pictures(params: Params, model: str, folder: Path) -> None:
    """`adaptation-TASK.png` for every task: the prediction picture of `model`."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in params.tasks:
        with Image.open(layout.task_folder(task, model) / "predictions.png") as stored:
            image = stored.convert("RGB").quantize(COLOURS)
        image.save(folder / f"adaptation-{task}.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
