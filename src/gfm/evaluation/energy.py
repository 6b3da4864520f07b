"""What a model cost: energy of pretraining, teacher and fine-tunings as each run measured it, and its kg CO2eq.

kWh are measured once; kg CO2eq follow from them by the intensity of the grid that `carbon` describes now, so that a
better intensity corrects the figures without another training.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from gfm import layout
from gfm.evaluation.scores import TaskRun, read_record
from gfm.params import Params
from gfm.tracking.carbon import Grid, grid


@dataclass(frozen=True)
class Part:
    """The recorded energy of one run; None where it was not measured."""

    what: str
    kwh: float | None
    kg_co2eq: float | None
    seconds: float
    method: str  # how power was known
    grid: str  # how energy became CO2eq


@dataclass(frozen=True)
class Cost:
    """The sum over a model's parts; None as soon as one part was not measured, because a partial sum misleads."""

    parts: list[Part]
    note: str = ""  # what the sum leaves out by its nature

    @property
    def kwh(self) -> float | None:
        return _sum([part.kwh for part in self.parts])

    @property
    def kg_co2eq(self) -> float | None:
        return _sum([part.kg_co2eq for part in self.parts])

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def methods(self) -> list[str]:
        return sorted({part.method for part in self.parts if part.method})

    @property
    def grids(self) -> list[str]:
        return sorted({part.grid for part in self.parts if part.grid})

    @property
    def unmeasured(self) -> list[str]:
        return [part.what for part in self.parts if part.kwh is None or part.kg_co2eq is None]


def costs(params: Params, runs: list[TaskRun]) -> dict[str, Cost]:
    """The cost of every compared model: making its encoder (and the teacher it learned from) and fine-tuning it."""
    now = grid(params.carbon)
    return {model: _cost(params, model, runs, now) for model in params.models}


def _cost(params: Params, model: str, runs: list[TaskRun], now: Grid | None) -> Cost:
    parts = []
    if model in params.encoders:
        parts.append(_encoder_part(params, model, f"encoder {model}", now))
    if model in params.pretrain:
        parts.append(_encoder_part(params, model, f"pretraining {model}", now))
    if model == "teacher" or model in params.pretrain:
        parts.append(_encoder_part(params, "teacher", "teacher", now))
    for run in (run for run in runs if run.model == model):
        if "search" in run.record:
            parts.append(_part(f"search on {run.task}", run.record["search"], now))
        parts.append(_part(f"fine-tuning on {run.task}", run.record, now))
    elsewhere = ""
    if model in params.encoders:
        imported = _origin(model) == "imported"
        elsewhere = "without its own training, which happened elsewhere" if imported else "without its parents' making"
    elif (model == "teacher" or model in params.pretrain) and params.teacher.kind == "timm":
        elsewhere = "without the training of the imported teacher, which happened elsewhere"
    return Cost(parts, elsewhere)


def _encoder_part(params: Params, name: str, what: str, now: Grid | None) -> Part:
    record = read_record(layout.encoder_folder(name) / "run.json", f"dvc repro {params.encoder_stage(name)}")
    part = _part(what, record, now)
    if part.kwh is None and _origin(name) == "imported":
        # Copying weights is not training: nothing was spent here that a meter would see.
        return Part(f"{what} (imported)", 0.0, 0.0, part.seconds, "", "")
    return part


def _origin(name: str) -> str:
    path = layout.encoder_folder(name) / "config.json"
    if not path.exists():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("gfm", {}).get("origin", ""))


def _part(what: str, record: dict[str, Any], now: Grid | None) -> Part:
    energy = record.get("energy") or {}
    seconds = energy.get("seconds") or record.get("seconds") or 0.0
    method = str(energy.get("method") or "not measured")
    kwh = _number(energy.get("kwh"))
    kg = _number(energy.get("kg_co2eq")) if now is None or kwh is None else kwh * now.kg_per_kwh
    return Part(what, kwh, kg, float(seconds), method, _grid(energy, now) if kg is not None else "")


def _grid(energy: dict[str, Any], now: Grid | None) -> str:
    """By which intensity kWh became kg, and which one the run recorded, where that is another."""
    recorded = _number(energy.get("intensity_kg_per_kwh"))
    if now is None:
        source = (str(energy[key]) for key in ("country", "intensity_source") if energy.get(key))
        return "" if recorded is None else _intensity(recorded, *source)
    words = _intensity(now.kg_per_kwh, now.country, now.source)
    if recorded is None or math.isclose(recorded, now.kg_per_kwh, rel_tol=1e-6):
        return words
    return f"{words}, restated from the measured kWh; recorded with {recorded:.3f}"


def _intensity(kg_per_kwh: float, *source: str) -> str:
    return f"{kg_per_kwh:.3f} kg CO2eq per kWh" + (f" ({', '.join(source)})" if source else "")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
