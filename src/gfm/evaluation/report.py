"""The HTML report: one self-contained page of results, pictures, data and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from gfm import layout
from gfm.evaluation import figures
from gfm.evaluation.ablation import Ablations
from gfm.evaluation.assessment import Assessment
from gfm.evaluation.canvas import Theme, colours_of
from gfm.evaluation.collection import DataSection
from gfm.evaluation.energy import Cost, Part, everything, tasks_costs
from gfm.evaluation.lineage import MISSING, facts, warnings
from gfm.evaluation.page import Drawn, draw, render
from gfm.evaluation.report_pictures import report_pictures
from gfm.evaluation.scores import TaskRun
from gfm.evaluation.verdict import FEW_SEEDS, verdict
from gfm.params import Params
from gfm.tracking.amount import amount, co2eq


def draw_figures(
    params: Params,
    assessment: Assessment,
    costs: Mapping[str, Cost],
    histories: Mapping[tuple[str, str], pd.DataFrame],
    trainings: Mapping[str, pd.DataFrame],
) -> dict[str, list[Drawn]]:
    """All figures by section: arp, scores and learning (one a task each), carbon, training (one a trained encoder).

    `histories` maps (task, model) to its history.csv, `trainings` an encoder's name to its own.
    """
    performance, intervals = assessment.performance, assessment.intervals.arp
    baseline, colours = assessment.baseline, colours_of(assessment.models)
    drawn: dict[str, list[Drawn]] = {"arp": [], "scores": [], "carbon": [], "learning": [], "training": []}
    if len(performance) > 1:
        line = f"with {assessment.level} interval" if any(intervals.values()) else ""
        drawn["arp"] = [
            draw("arp", "ARP", line, lambda t: figures.arp_bars(performance, intervals, baseline, colours, t)),
            draw(
                "contributions",
                "Contribution of each task",
                "",
                lambda t: figures.contribution_bars(performance, baseline, colours, t),
            ),
        ]
    points = {m: (kg, performance[m].arp) for m in performance if (kg := costs[m].kg_co2eq) is not None}
    if points and len(points) == len(performance):
        drawn["carbon"] = [
            draw(
                "arp-carbon",
                "ARP against CO2eq",
                "",
                lambda t: figures.arp_against_carbon(points, intervals, baseline, colours, t),
            )
        ]
    alike = _of_one_data_set(params, assessment)
    for task, metric in assessment.metrics.items():
        drawn["scores"].append(draw(f"scores-{task}", task, "", _scores(assessment, task, alike[task], colours)))
        if curves := _curves(assessment, task, histories):
            drawn["learning"].append(draw(f"learning-{task}", task, "", _learning(curves, metric, colours)))
    for name, history in trainings.items():
        losses = [column.removeprefix("train_") for column in history.columns if column.startswith("train_")]
        if losses and not history.empty:
            drawn["training"].append(draw(f"training-{name}", name, "", _training(history, losses)))
    return drawn


def _curves(
    assessment: Assessment, task: str, histories: Mapping[tuple[str, str], pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """The histories of a task that hold an epoch; a mode in which nothing learns leaves none."""
    own = {model: histories[task, model] for model in assessment.models if (task, model) in histories}
    return {model: history for model, history in own.items() if not history.empty}


def _without_curves(assessment: Assessment, drawn: Mapping[str, list[Drawn]]) -> list[str]:
    """Tasks whose learning is not drawn; none where no task's is."""
    shown = {figure.title for figure in drawn["learning"]}
    return [task for task in assessment.tasks if shown and task not in shown]


def _scores(
    assessment: Assessment, task: str, alike: Sequence[str], colours: Mapping[str, str]
) -> Callable[[Theme], bytes]:
    means = {model: assessment.means[task, model] for model in assessment.models}
    spread = {model: assessment.intervals.scores[task, model] for model in assessment.models}
    every = [(one, model) for one in alike for model in assessment.models]
    bounds = [interval for key in every if (interval := assessment.intervals.scores[key]) is not None]
    ends = [assessment.means[key] for key in every] + [end for one in bounds for end in (one.low, one.high)]
    span = min(0.0, *ends), max(ends)
    return lambda theme: figures.score_bars(means, spread, assessment.metrics[task], span, colours, theme)


def _learning(curves: dict[str, pd.DataFrame], metric: str, colours: Mapping[str, str]) -> Callable[[Theme], bytes]:
    return lambda theme: figures.learning_curves(curves, metric, colours, theme)


def _training(history: pd.DataFrame, losses: list[str]) -> Callable[[Theme], bytes]:
    return lambda theme: figures.training_curves(history, losses, theme)


def render_report(
    params: Params,
    assessment: Assessment,
    references: Mapping[str, str],
    costs: Mapping[str, Cost],
    drawn: Mapping[str, list[Drawn]],
    data: DataSection,
    records: Mapping[str, Mapping[str, Any]],
    removed: Ablations | None,
    stale: Sequence[str],
    runs: list[TaskRun],
) -> str:
    """The page as text; `records` maps each run's name to its provenance, `references` a task to what scores it.

    `stale` says which scores are of something that has changed since.
    """
    found = facts(records)
    commits = next(([value for value, _ in fact.values] for fact in found if fact.name == "commit"), [MISSING])
    return render(
        "report.html.j2",
        experiment=params.tracking.experiment,
        verdict=verdict(assessment),
        commit=commits[0][:12] if len(commits) == 1 else f"of {len(commits)} commits",
        warnings=[*stale, *warnings(records)],
        tasks=assessment.tasks,
        models=assessment.models,
        baseline=assessment.baseline,
        colours=colours_of(assessment.models),
        rows=_rows(params, assessment, references),
        modes=_modes(params, assessment),
        ablations=removed,
        arp_cells=_arp_cells(assessment),
        cost_cells={model: _cost_cell(cost) for model, cost in costs.items()},
        account=_account(costs),
        seeds_text=_seeds_text(assessment),
        few_seeds=FEW_SEEDS if min(assessment.seeds.values()) < FEW_SEEDS else None,
        confidence=assessment.level,
        resamples=f"{params.evaluate.bootstrap:,}",
        undefined=assessment.undefined,
        no_interval=[] if assessment.undefined else list(assessment.intervals.reasons.items()),
        figures=drawn,
        without_curves=_without_curves(assessment, drawn),
        **report_pictures(assessment, runs),
        pages=_pages_beside(params),
        methods=sorted({method for cost in costs.values() for method in cost.methods}),
        computed_from=sorted({how for cost in costs.values() for how in cost.computed_from}),
        grids=sorted({grid for cost in costs.values() for grid in cost.grids}),
        data=data,
        facts=found,
        run_names=list(records),
    )


def _pages_beside(params: Params) -> dict[str, str]:
    """The pages of other stages that stand beside this one, by what they show: their addresses relative to it."""
    pages = {"the collection's own page": layout.COLLECTION_REPORT / "report.html"}
    for name in params.embeddings:
        pages[f"the collection as {name} sees it"] = layout.EMBEDDING_REPORTS / name / "report.html"
    return {what: path.relative_to(layout.REPORTS).as_posix() for what, path in pages.items() if path.exists()}


def _rows(params: Params, assessment: Assessment, references: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for task in assessment.tasks:
        cells = [_score_cell(assessment, task, model) for model in assessment.models]
        rows.append(
            {
                "task": task,
                "metric": assessment.metrics[task],
                "mode": params.tasks[task].finetune.mode,
                "variant_of": params.tasks[task].variant_of or "",
                "reference": references.get(task, ""),
                "too_small": params.evaluate.too_small.get(task, ""),
                "cells": cells,
            }
        )
    return rows


def _score_cell(assessment: Assessment, task: str, model: str) -> dict[str, Any]:
    interval = assessment.intervals.scores[task, model]
    half = "" if interval is None else f"{interval.half:.3f}"
    best = model in assessment.best(task)
    return {"score": f"{assessment.means[task, model]:.3f}", "half": half, "best": best}


def _modes(params: Params, assessment: Assessment) -> list[dict[str, Any]]:
    """Data sets that models were adapted to in several modes: a row a model, a column a mode, the counted one first."""
    found = []
    alike = _of_one_data_set(params, assessment)
    for first in assessment.counted:
        tasks = alike[first]
        if len(tasks) > 1:
            rows = [
                {"model": model, "cells": [_score_cell(assessment, task, model) for task in tasks]}
                for model in assessment.models
            ]
            modes = [params.tasks[task].finetune.mode for task in tasks]
            found.append({"dataset": first, "metric": assessment.metrics[first], "modes": modes, "rows": rows})
    return found


def _of_one_data_set(params: Params, assessment: Assessment) -> dict[str, list[str]]:
    """Of every task the tasks with its data, the counted one first."""
    sets: dict[str, list[str]] = {first: [first] for first in assessment.counted}
    for task in assessment.tasks:
        if task not in sets:
            sets.setdefault(params.tasks[task].variant_of or task, []).append(task)
    return {task: tasks for tasks in sets.values() for task in tasks}


def _arp_cells(assessment: Assessment) -> list[dict[str, Any]]:
    top = max((entry.arp for entry in assessment.performance.values()), default=None)
    cells = []
    for model in assessment.models:
        entry = assessment.performance.get(model)
        if entry is None:
            cells.append({"value": "not defined", "bounds": "", "best": False})
            continue
        interval = assessment.intervals.arp[model] if model != assessment.baseline else None
        cells.append(
            {
                "value": "0" if model == assessment.baseline else f"{entry.arp:+.2f}",
                "bounds": "" if interval is None else f"{interval.low:+.2f} to {interval.high:+.2f}",
                "best": entry.arp == top,
            }
        )
    return cells


def _cost_cell(cost: Cost) -> dict[str, str]:
    return {
        "kwh": amount(cost.kwh),
        "co2eq": co2eq(cost.kg_co2eq),
        "computed": _computed(cost.computed_kg_co2eq),
        "per_1000": _per_1000(cost),
        "time": duration(cost.seconds),
        "parts": ", ".join(part.what for part in cost.parts),
        "note": cost.note,
        "unmeasured": ", ".join(cost.unmeasured),
    }


def _account(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Every run once: in groups, each with its sum, and the sum of these sums."""
    whole = everything(costs)
    behind = {
        part.place: [model for model, cost in costs.items() if part.place in {other.place for other in cost.parts}]
        for part in whole.parts
    }
    groups = {
        "collection and encoders": Cost([part for part in whole.parts if part.task is None]),
        **{f"task {task}": cost for task, cost in tasks_costs(costs).items()},
    }
    return {
        "groups": [
            {
                "sum": _line(name, group, ""),
                "runs": [_line(_run_name(part), part, ", ".join(behind[part.place])) for part in group.parts],
            }
            for name, group in groups.items()
            if group.parts
        ],
        "all": _line("all runs", whole, ""),
    }


def _run_name(part: Part) -> str:
    return part.what if part.task is None else part.what.removesuffix(f" on {part.task}")


def _line(what: str, spent: Part | Cost, models: str) -> dict[str, str]:
    return {
        "what": what,
        "models": models,
        "kwh": amount(spent.kwh),
        "co2eq": co2eq(spent.kg_co2eq),
        "computed": _computed(spent.computed_kg_co2eq),
        "time": duration(spent.seconds),
        "samples": f"{spent.samples:,}" if spent.samples else "–",
        "per_1000": _per_1000(spent),
    }


def _computed(kg: float | None) -> str:
    return "not computed" if kg is None else co2eq(kg)


def _per_1000(spent: Part | Cost) -> str:
    return "–" if spent.kg_per_1000 is None else co2eq(spent.kg_per_1000)


def duration(seconds: float) -> str:
    """A time span in the unit that a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _seeds_text(assessment: Assessment) -> str:
    counts = sorted(set(assessment.seeds.values()))
    if counts == [1]:
        return "one seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
