"""What a model cost: energy of collection, teacher, pretraining and fine-tunings, measured and computed.

kWh are measured once; kg CO2eq follow from them by the intensity of the grid that `carbon` describes now, so that a
better intensity corrects the figures without another training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from gfm import layout
from gfm.evaluation.scores import TaskRun, read_record
from gfm.params import Params
from gfm.tracking.carbon import Grid, grid
from gfm.tracking.data_energy import noted


@dataclass(frozen=True)
class Part:
    """The recorded energy of one run; None where it was not measured, or not computed."""

    what: str
    kwh: float | None
    kg_co2eq: float | None
    seconds: float
    method: str  # how power was known
    grid: str  # how energy became CO2eq
    computed_kg_co2eq: float | None = None  # hours x power x PUE x grid
    computed_from: str = ""
    samples: int | None = None  # images that it took in, repeats counted
    place: str = ""  # where its record lies: the same run behind two models is one
    task: str | None = None  # of a fine-tuning

    @property
    def kg_per_1000(self) -> float | None:
        """kg CO2eq per 1,000 samples; None where either is not known."""
        return None if self.kg_co2eq is None or not self.samples else 1000 * self.kg_co2eq / self.samples


@dataclass(frozen=True)
class Cost:
    """The sum over parts, of a model or a task; None as soon as one was not measured: a partial sum misleads."""

    parts: list[Part]
    note: str = ""  # what the sum leaves out by its nature

    @property
    def kwh(self) -> float | None:
        return _sum([part.kwh for part in self.parts])

    @property
    def kg_co2eq(self) -> float | None:
        return _sum([part.kg_co2eq for part in self.parts])

    @property
    def computed_kg_co2eq(self) -> float | None:
        return _sum([part.computed_kg_co2eq for part in self.parts])

    @property
    def samples(self) -> int:
        return sum(part.samples or 0 for part in self.parts)

    @property
    def kg_per_1000(self) -> float | None:
        """kg CO2eq per 1,000 samples that all parts took in, repeats counted."""
        return None if self.kg_co2eq is None or not self.samples else 1000 * self.kg_co2eq / self.samples

    @property
    def computed_from(self) -> list[str]:
        return sorted({part.computed_from for part in self.parts if part.computed_from})

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


def tasks_costs(spent: Mapping[str, Cost]) -> dict[str, Cost]:
    """What was spent on every task: its fine-tunings, of all models."""
    found: dict[str, list[Part]] = {}
    for part in everything(spent).parts:
        if part.task is not None:
            found.setdefault(part.task, []).append(part)
    return {task: Cost(parts) for task, parts in found.items()}


def everything(spent: Mapping[str, Cost]) -> Cost:
    """Every run behind the compared models, once: teacher and collection stand behind several."""
    return Cost(list({part.place: part for cost in spent.values() for part in cost.parts}.values()))


def _cost(params: Params, model: str, runs: list[TaskRun], now: Grid | None) -> Cost:
    parts, notes = [], []
    if model in params.encoders:
        parts.append(_encoder_part(params, model, f"encoder {model}", now))
    if model in params.pretrain:
        parts.append(_encoder_part(params, model, f"pretraining {model}", now))
    if model == "teacher" or model in params.pretrain:
        parts.append(_encoder_part(params, "teacher", "teacher", now))
    if model in params.pretrain or (model == "teacher" and params.teacher.kind == "supervised"):
        assembly = noted("assemble", layout.MANIFEST)
        if assembly is None:
            notes.append("without the assembly of the collection, which was not measured here")
        else:
            record = {"energy": assembly, "samples": pq.read_metadata(layout.MANIFEST).num_rows}
            parts.append(_part("assembly of the collection", record, now, str(layout.COLLECTION)))
    for run in runs:
        if run.model == model:
            place = str(layout.task_folder(run.task, model))
            if "search" in run.record:
                parts.append(_part(f"search on {run.task}", run.record["search"], now, f"{place}/search", run.task))
            parts.append(_part(f"fine-tuning on {run.task}", run.record, now, place, run.task))
    if model in params.encoders:
        imported = _origin(model) == "imported"
        notes.append(
            "without its own training, which happened elsewhere" if imported else "without its parents' making"
        )
    elif (model == "teacher" or model in params.pretrain) and params.teacher.kind == "timm":
        notes.append("without the training of the imported teacher, which happened elsewhere")
    return Cost(parts, "; ".join(notes))


def _encoder_part(params: Params, name: str, what: str, now: Grid | None) -> Part:
    record = read_record(layout.encoder_folder(name) / "run.json", f"dvc repro {params.encoder_stage(name)}")
    place = str(layout.encoder_folder(name))
    part = _part(what, record, now, place)
    if part.kwh is None and _origin(name) == "imported":
        # Copying weights is not training: nothing was spent here that a meter would see.
        return Part(f"{what} (imported)", 0.0, 0.0, part.seconds, "", "", 0.0, place=place)
    return part


def _origin(name: str) -> str:
    path = layout.encoder_folder(name) / "config.json"
    if not path.exists():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("gfm", {}).get("origin", ""))


def _part(what: str, record: Mapping[str, Any], now: Grid | None, place: str, task: str | None = None) -> Part:
    energy = record.get("energy") or {}
    seconds = energy.get("seconds") or record.get("seconds") or 0.0
    method = str(energy.get("method") or "not measured")
    kwh = _number(energy.get("kwh"))
    kg = _number(energy.get("kg_co2eq")) if now is None or kwh is None else kwh * now.kg_per_kwh
    computed = _number(energy.get("computed_kwh"))
    computed_kg = _number(energy.get("computed_kg_co2eq"))
    if now is not None and computed is not None:
        computed_kg = computed * now.kg_per_kwh
    return Part(
        what,
        kwh,
        kg,
        float(seconds),
        method,
        _grid(energy, now) if kg is not None else "",
        computed_kg,
        str(energy.get("computed_from") or ""),
        record.get("samples"),
        place,
        task,
    )


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
