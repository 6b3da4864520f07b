"""What a model cost: energy and kg CO2eq of pretraining, teacher and fine-tunings, as each run recorded it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gfm import layout
from gfm.evaluation.scores import TaskRun, read_record
from gfm.params import Params


@dataclass(frozen=True)
class Part:
    """The recorded energy of one run; None where it was not measured, or not from the first step."""

    what: str
    kwh: float | None
    kg_co2eq: float | None
    seconds: float
    method: str  # how power was known
    grid: str  # how energy became CO2eq
    gap: str = ""  # what the record leaves out, where the run was resumed


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
        return [
            f"{part.what} ({part.gap})" if part.gap else part.what
            for part in self.parts
            if part.kwh is None or part.kg_co2eq is None
        ]


def costs(params: Params, runs: list[TaskRun]) -> dict[str, Cost]:
    """The cost of every compared model: making its encoder (and the teacher it learned from) and fine-tuning it."""
    return {model: _cost(params, model, runs) for model in params.models}


def _cost(params: Params, model: str, runs: list[TaskRun]) -> Cost:
    parts = []
    if model != "random":
        parts.append(_encoder_part(model, "teacher" if model == "teacher" else f"pretraining {model}"))
    if model in params.pretrain:
        parts.append(_encoder_part("teacher", "teacher"))
    parts += [_part(f"fine-tuning on {run.task}", run.record) for run in runs if run.model == model]
    learned = model == "teacher" or model in params.pretrain
    elsewhere = learned and params.teacher.kind == "timm"
    return Cost(parts, "without the training of the imported teacher, which happened elsewhere" if elsewhere else "")


def _encoder_part(name: str, what: str) -> Part:
    folder = layout.encoder_folder(name)
    stage = "teacher" if name == "teacher" else f"pretrain@{name}"
    part = _part(what, read_record(folder / "run.json", f"dvc repro {stage}"))
    if part.kwh is None and _origin(name) == "imported":
        # Copying weights is not training: nothing was spent here that a meter would see.
        return Part(f"{what} (imported)", 0.0, 0.0, part.seconds, "", "")
    return part


def _origin(name: str) -> str:
    path = layout.encoder_folder(name) / "config.json"
    if not path.exists():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("gfm", {}).get("origin", ""))


def _part(what: str, record: dict[str, Any]) -> Part:
    energy = record.get("energy") or {}
    seconds = energy.get("seconds") or record.get("seconds") or 0.0
    method = str(energy.get("method") or "not measured")
    kwh, kg = _number(energy.get("kwh")), _number(energy.get("kg_co2eq"))
    resumed = record.get("resumed_at_step")
    if resumed is None:
        return Part(what, kwh, kg, float(seconds), method, _grid(energy) if kg is not None else "")
    # What the run spent before it was resumed is nowhere recorded, so the rest is no figure for the whole.
    gap = f"{'timed' if kwh is None else 'measured'} only after step {resumed}"
    return Part(what, None, None, float(seconds), method if kwh is None else f"{what} {gap}", "", gap)


def _grid(energy: dict[str, Any]) -> str:
    intensity = _number(energy.get("intensity_kg_per_kwh"))
    if intensity is None:
        return ""
    source = [str(energy[key]) for key in ("country", "intensity_source") if energy.get(key)]
    return f"{intensity:.3f} kg CO2eq per kWh" + (f" ({', '.join(source)})" if source else "")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
