"""Learning rates and parameter groups that the published code has, as a file stores them, and rows that compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationError

from gfm.errors import GfmError
from gfm.models.parity import Row, row
from gfm.params import Section
from gfm.params.section import Listed

# Python floats: one step too early or late shows at 1e-6, which 1e-4 would hide.
SCHEDULE_TOLERANCE = 1e-9

# Larger numbers would overflow a learning rate.
Count = Annotated[int, Field(gt=0, le=10**9)]
Step = Annotated[str, Field(pattern=r"^\d+$")]


class StoredPretraining(Section):
    """What the published code does in pretraining; names are the published code's."""

    global_batch: Count
    steps_per_epoch: Count
    epochs: Count
    decay: list[str]
    no_decay: list[str]
    weight_decay: NonNegativeFloat
    betas: Annotated[tuple[float, float], Listed]
    eps: PositiveFloat
    clip_grad: PositiveFloat
    lr_at_step: dict[Step, float] = Field(min_length=1)


class StoredGroup(Section):
    """A group of the optimiser's parameters; names are those of the published classifier."""

    name: str
    lr_scale: PositiveFloat
    weight_decay: NonNegativeFloat
    params: list[str]


class StoredFinetuning(Section):
    """What the published code does in fine-tuning."""

    global_batch: Count
    steps_per_epoch: Count
    epochs: Count
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    groups: list[StoredGroup] = Field(min_length=1)
    lr_at_step: dict[Step, dict[str, float]] = Field(min_length=1)


class StoredSchedule(Section):
    """A schedule file."""

    pretrain: StoredPretraining
    finetune: StoredFinetuning | None = None


def read_schedule_file(path: Path) -> StoredSchedule:
    """A schedule file; GfmError names the file and the key that is missing, unknown or of the wrong type."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise GfmError(f"{path}: no such file; give a schedule file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GfmError(f"{path}: not a readable JSON file: {error}") from None
    try:
        stored = StoredSchedule.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise GfmError(f"{path}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    for name in set(stored.pretrain.decay) & set(stored.pretrain.no_decay):
        raise GfmError(f"{path}: pretrain: {name} stands in decay and in no_decay")
    groups = [] if stored.finetune is None else [group.name for group in stored.finetune.groups]
    for name in groups:
        if groups.count(name) > 1:
            raise GfmError(f"{path}: finetune.groups: {name} stands there twice")
    return stored


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key} stands twice")
        found[key] = value
    return found


def number_row(quantity: str, found: float, expected: float) -> Row:
    """One number, as float64: a step too early or late shows at 1e-6."""
    return row(quantity, torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def names_row(quantity: str, found: set[str], expected: list[str]) -> Row:
    """A set of names; the error is the share of them that only one side has."""
    differing = sorted(found ^ set(expected)) + [name for name in set(expected) if expected.count(name) > 1]
    return Row(
        quantity,
        (len(expected),),
        largest=len(expected),
        difference=len(differing),
        error=len(differing) / max(1, len(expected)),
        note=", ".join(differing[:3]),
    )
