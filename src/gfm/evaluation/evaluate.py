"""The last stage: the results table, ARP with its interval, the figures and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import JsonValue

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.ablation import ablations
from gfm.evaluation.assessment import Assessment, assess
from gfm.evaluation.collection import read_data
from gfm.evaluation.energy import Cost, costs, everything, tasks_costs
from gfm.evaluation.ground import Ground, grounds
from gfm.evaluation.page import write_figures
from gfm.evaluation.report import draw_figures, render_report
from gfm.evaluation.scores import (
    TaskRun,
    as_csv,
    primary_metrics,
    read_record,
    read_runs,
    references,
    results_table,
)
from gfm.evaluation.staleness import parameter_digests, stale_scores
from gfm.evaluation.verdict import verdict
from gfm.output_file import write_whole
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say

ARP = layout.REPORTS / "arp.json"
METRICS = layout.REPORTS / "metrics.json"
FIGURES = layout.REPORTS / "figures"


def evaluate(params: Params) -> None:
    """Compare the models of the parameters on all tasks and write reports/.

    Writes results.csv, arp.json, metrics.json, figures/*.png and report.html, each whole or not at all, and closes the
    pipeline's tracking run, as FAILED where this fails. Raises DataError naming what is missing and the command that
    makes it.
    """
    from gfm.tracking.runs import pipeline_fails_with

    with pipeline_fails_with(params):
        _evaluate(params)


def _evaluate(params: Params) -> None:
    from gfm.tracking.provenance import provenance
    from gfm.tracking.runs import finish_pipeline
    from gfm.tracking.scored import scored_tags, validation_tags

    runs = read_runs(params)
    results = results_table(runs)
    assessment = assess(params, results, primary_metrics(runs))
    spent = costs(params, runs)
    data = read_data(params)
    encoders = _encoder_records(params)
    records = {
        **{name: entry.get("provenance", {}) for name, entry in encoders.items()},
        **{f"{run.task} {run.model}": run.record.get("provenance", {}) for run in runs},
        "report": provenance(None),
    }
    run_ids = {name: encoders[name].get("run_id") for name in params.models}
    untrained = references(runs)
    summary = _summary(assessment, untrained, spent, grounds(runs), run_ids)
    summary["parameters"] = parameter_digests(params)
    stale = [f"{why}: `dvc repro evaluate` brings all up to date." for why in stale_scores(params, runs)]
    removed = ablations(params, assessment, results, encoders)
    drawn = draw_figures(params, assessment, spent, _histories(runs), _trainings(encoders))
    page = render_report(params, assessment, untrained, spent, drawn, data, records, removed, stale, runs)

    layout.REPORTS.mkdir(parents=True, exist_ok=True)
    write_whole(layout.RESULTS, as_csv(results))
    write_whole(ARP, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_whole(METRICS, json.dumps(_metrics(assessment, spent), indent=2) + "\n")
    with new_folder(FIGURES) as folder:
        write_figures(folder, (figure for group in drawn.values() for figure in group))
    write_whole(layout.REPORT, page)
    finish_pipeline(
        params,
        [layout.REPORT, layout.RESULTS, ARP, FIGURES],
        {f"arp.{model}": entry.arp for model, entry in assessment.performance.items()}
        | {f"kg_co2eq.{model}": cost.kg_co2eq for model, cost in spent.items() if cost.kg_co2eq is not None},
        {**validation_tags(data.validation["success"], len(data.validation["warnings"])), **scored_tags(run_ids)},
    )
    say(verdict(assessment).line)
    say(f"report: {layout.REPORT} ({layout.REPORT.stat().st_size / 1e6:.1f} MB)")


def _summary(
    assessment: Assessment,
    untrained: Mapping[str, str],
    spent: Mapping[str, Cost],
    ground: Mapping[str, Ground],
    run_ids: Mapping[str, str | None],
) -> dict[str, JsonValue]:
    """The content of arp.json, models and tasks in the order of the parameters; null where there is no figure."""
    models: dict[str, JsonValue] = {}
    for model in assessment.models:
        entry, interval = assessment.performance.get(model), assessment.intervals.arp[model]
        models[model] = {
            "arp": None if entry is None else round(entry.arp, 4),
            "low": None if interval is None else round(interval.low, 4),
            "high": None if interval is None else round(interval.high, 4),
            "contributions": {task: round(value, 4) for task, value in entry.contributions.items()} if entry else {},
            **_figures(spent[model]),
            "energy_method": "; ".join(spent[model].methods),
            "grid": "; ".join(spent[model].grids),
            "run_id": run_ids[model],
        }
    return {
        "baseline": assessment.baseline,
        "undefined": assessment.undefined,
        "confidence": assessment.confidence,
        "tasks": {task: own.as_dict() for task, own in ground.items()},
        "models": models,
        "spent": {
            "tasks": {task: _figures(cost) for task, cost in tasks_costs(spent).items()},
            "all_runs_once": _figures(everything(spent)),
        },
        **({"references": dict(untrained)} if untrained else {}),
    }


def _metrics(assessment: Assessment, spent: Mapping[str, Cost]) -> dict[str, JsonValue]:
    """The content of metrics.json: what `dvc metrics show` and `dvc metrics diff` tell in one short row."""
    others = [model for model in assessment.models if model != assessment.baseline]
    found = {model: entry.arp for model, entry in assessment.performance.items()}
    return {
        "arp": {model: round(found[model], 2) if model in found else None for model in others},
        "kwh": {model: _rounded(spent[model].kwh) for model in assessment.models},
    }


def _figures(cost: Cost) -> dict[str, JsonValue]:
    return {
        "kg_co2eq": _rounded(cost.kg_co2eq),
        "kwh": _rounded(cost.kwh),
        "computed_kg_co2eq": _rounded(cost.computed_kg_co2eq),
        "kg_co2eq_per_1000_samples": _rounded(cost.kg_per_1000),
    }


def _rounded(value: float | None) -> float | None:
    # Six significant digits: quickstart runs spend a few milligrams.
    return None if value is None else float(f"{value:.6g}")


def _encoder_records(params: Params) -> dict[str, dict[str, Any]]:
    """run.json of every encoder behind the comparison, the teacher of pretrained ones among them."""
    names = list(params.models)
    if "teacher" not in names and any(name in params.pretrain for name in names):
        names.append("teacher")
    return {
        name: read_record(layout.encoder_folder(name) / "run.json", f"dvc repro {params.encoder_stage(name)}")
        for name in names
    }


def _histories(runs: list[TaskRun]) -> dict[tuple[str, str], pd.DataFrame]:
    found = {}
    for run in runs:
        path = layout.task_folder(run.task, run.model) / "history.csv"
        if path.exists():
            found[run.task, run.model] = _read_history(path, ["seed", "epoch"])
    return found


def _trainings(encoders: Mapping[str, object]) -> dict[str, pd.DataFrame]:
    paths = {name: layout.encoder_folder(name) / "history.csv" for name in encoders}
    return {name: _read_history(path, ["epoch"]) for name, path in paths.items() if path.exists()}


def _read_history(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=columns)
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a table ({' '.join(str(error).split())}); repeat the stage that wrote it"
        ) from None
    lacking = [column for column in columns if column not in history]
    if lacking:
        raise DataError(f"{path}: lacks the columns {', '.join(lacking)}; repeat the stage that wrote it")
    return history
