"""The results on a terminal: scores, ARP, kg CO2eq, and where to look further."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.assessment import Assessment, assess
from gfm.evaluation.columns import aligned
from gfm.evaluation.staleness import stale_report
from gfm.evaluation.verdict import verdict
from gfm.params import Params
from gfm.progress import say
from gfm.tracking.amount import co2eq

ARP = layout.REPORTS / "arp.json"
REMEDY = "run `dvc repro evaluate`"


@dataclass(frozen=True)
class Spent:
    """The energy figures of one model in arp.json."""

    kg_co2eq: float | None
    method: str  # how the energy is known, or why it is not
    grid: str  # by which intensity it became CO2eq


def print_results(params: Params) -> None:
    """Print what `gfm evaluate` wrote. Raises DataError when there is nothing yet, or when params.yaml has moved on."""
    results = _read_results(params)
    # The primary metric stands first in results.csv.
    metrics = {task: str(results[results["task"] == task]["metric"].iloc[0]) for task in params.tasks}
    assessment = assess(params, results, metrics)
    spent = _read_spent(params)
    say(format_table(assessment, {model: entry.kg_co2eq for model, entry in spent.items()}))
    say(f"± is half of the {assessment.level} bootstrap interval over seeds; ARP stands with the interval itself.")
    say(_energy_line(spent))
    for grid in sorted({entry.grid for entry in spent.values() if entry.grid}):
        say(f"Grid: {grid}.")
    say(f"\n{verdict(assessment).line}")
    for name, reference in _read_references().items():
        say(f"{name}: {reference} without training")
    for name, why in params.evaluate.too_small.items():
        say(f"{name} is too small to conclude from: {why}")
    stale = stale_report(params, results, _read_digests())
    if stale:
        say(f"\nThe report is stale: {'; '.join(stale)}. {REMEDY[0].upper()}{REMEDY[1:]}.")
    say("\nLook further:")
    for line in _look_further(params):
        say(f"  {line}")


def format_table(assessment: Assessment, carbon: dict[str, float | None]) -> str:
    """Tasks as rows, models as columns: mean score ± half of its interval, then ARP with its bounds and CO2eq."""
    baseline = assessment.baseline
    header = ["task", *(f"{model} (baseline)" if model == baseline else model for model in assessment.models)]
    rows = [header]
    for task, metric in assessment.metrics.items():
        row = [f"{task} ({metric})" if task in assessment.counted else f"{task} ({metric}), not in ARP"]
        for model in assessment.models:
            interval = assessment.intervals.scores[task, model]
            row.append(f"{assessment.means[task, model]:.3f}" + (f" ±{interval.half:.3f}" if interval else ""))
        rows.append(row)
    arp = ["ARP, %"]
    for model in assessment.models:
        entry, interval = assessment.performance.get(model), assessment.intervals.arp[model]
        if entry is None:
            arp.append("not defined")
        elif model == baseline:
            arp.append("0")
        else:
            bounds = f"[{interval.low:+.2f}, {interval.high:+.2f}]" if interval else "(no interval)"
            arp.append(f"{entry.arp:+.2f} {bounds}")
    kilograms = (carbon[model] for model in assessment.models)
    rows += [arp, ["CO2eq", *(co2eq(kg) for kg in kilograms)]]
    lines = aligned(rows)
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-2], rule, *lines[-2:]])


def _read_results(params: Params) -> pd.DataFrame:
    if not layout.RESULTS.exists():
        raise DataError(f"{layout.RESULTS}: no such file; {REMEDY}")
    results = pd.read_csv(layout.RESULTS, keep_default_na=False)
    scored = {(str(task), str(model)) for task, model in zip(results["task"], results["model"], strict=True)}
    wanted = {(task, model) for task in params.tasks for model in params.models}
    if scored != wanted:
        differing = sorted(f"{task} x {model}" for task, model in scored ^ wanted)
        raise DataError(f"{layout.RESULTS}: made for other tasks or models ({differing[0]}); {REMEDY}")
    return results


def _read_references() -> dict[str, str]:
    return dict(json.loads(ARP.read_text(encoding="utf-8")).get("references", {}))


def _read_digests() -> dict[str, str]:
    return dict(json.loads(ARP.read_text(encoding="utf-8")).get("parameters", {}))


def _read_spent(params: Params) -> dict[str, Spent]:
    try:
        models = json.loads(ARP.read_text(encoding="utf-8"))["models"]
        return {
            model: Spent(found["kg_co2eq"], str(found["energy_method"]), str(found["grid"]))
            for model, found in ((model, models[model]) for model in params.models)
        }
    except (FileNotFoundError, ValueError, KeyError):
        raise DataError(f"{ARP}: missing or incomplete; {REMEDY}") from None


def _energy_line(spent: Mapping[str, Spent]) -> str:
    """How CO2eq is known, by model where it is not the same for all."""
    models: dict[str, list[str]] = {}
    for model, entry in spent.items():
        models.setdefault(entry.method or "method not recorded", []).append(model)
    if len(models) == 1:
        return f"CO2eq by {next(iter(models))}."
    return "CO2eq by " + " | ".join(f"{', '.join(names)}: {method}" for method, names in models.items())


def _look_further(params: Params) -> list[str]:
    uri = params.tracking.uri
    if uri == "none":
        tracking = "nothing was tracked (tracking.uri = none)"
    elif uri.startswith(("http://", "https://")):
        tracking = uri
    else:
        tracking = f"{_program('mlflow')} ui --backend-store-uri {shlex.quote(uri)}   then http://127.0.0.1:5000"
    return [
        f"Report:     {layout.REPORT}",
        f"MLflow UI:  {tracking}",
        f"Prefect UI: {_program('prefect')} server start   then http://127.0.0.1:4200",
    ]


def _program(name: str) -> str:
    """How to call a program of this environment from the working folder, activated or not."""
    here = Path(sys.executable).parent / name
    if sys.prefix == sys.base_prefix or not here.exists():
        return name
    return min(os.path.relpath(here), str(here), key=len)
