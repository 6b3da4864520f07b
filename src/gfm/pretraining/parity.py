"""Agreement with the published code in what a step does: learning rates, parameter groups, weight decay."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError
from torch import nn

from gfm.errors import GfmError
from gfm.models.parity import Row, build_published, row
from gfm.models.parity_file import Swin
from gfm.models.published import published_name
from gfm.params import GfmPretraining, Section
from gfm.params.section import Listed
from gfm.pretraining.optimiser import BETAS, EPS, learning_rate, parameter_groups

# Python floats: one step too early or late shows at 1e-6, which 1e-4 would hide.
SCHEDULE_TOLERANCE = 1e-9
BLOCK = re.compile(r"^encoder\.layers\.(\d+)\.blocks\.(\d+)\.")

Step = Annotated[str, Field(pattern=r"^\d+$")]


class StoredPretraining(Section):
    """What the published code does in pretraining; names are the published code's."""

    global_batch: PositiveInt
    steps_per_epoch: PositiveInt
    epochs: PositiveInt
    decay: list[str]
    no_decay: list[str]
    weight_decay: NonNegativeFloat
    betas: Annotated[tuple[float, float], Listed]
    eps: PositiveFloat
    clip_grad: PositiveFloat
    lr_at_step: dict[Step, float] = Field(min_length=1)


class StoredFinetuning(Section):
    """What the published code does in fine-tuning."""

    global_batch: PositiveInt
    steps_per_epoch: PositiveInt
    epochs: PositiveInt
    layer_decay: PositiveFloat
    groups: list[dict[str, Any]]
    lr_at_step: dict[Step, dict[str, float]]


class Stored(Section):
    """A schedule file."""

    pretrain: StoredPretraining
    finetune: StoredFinetuning | None = None


@dataclass(frozen=True, slots=True)
class ScheduleComparison:
    """What was compared, and in words what was not."""

    rows: list[Row]
    not_compared: list[str]


def compare_schedule(path: Path) -> ScheduleComparison:
    """Compare the recipe `gfm`, as it is by default, with a schedule file of the published code.

    GfmError names the file and the key that is missing, unknown or of the wrong type.
    """
    stored = _read(path)
    here, published = GfmPretraining(recipe="gfm"), stored.pretrain
    rate = learning_rate(
        here.schedule,
        batch_size=published.global_batch,
        epochs=published.epochs,
        steps_per_epoch=published.steps_per_epoch,
    )
    rows = [
        _number(f"learning rate at step {step}", rate(int(step)), expected)
        for step, expected in published.lr_at_step.items()
    ]
    model = _model(path, published)
    names = {id(parameter): published_name(name) for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, here.weight_decay)
    wanted = (("decay", published.decay, published.weight_decay), ("no_decay", published.no_decay, 0.0))
    for group, (name, expected_names, decay) in zip(groups, wanted, strict=True):
        rows.append(_names(f"parameters in {name}", {names[id(p)] for p in group["params"]}, expected_names))  # type: ignore[attr-defined]
        rows.append(_number(f"weight decay of {name}", float(group["weight_decay"]), decay))  # type: ignore[arg-type]
    rows += [
        _number("beta 1", BETAS[0], published.betas[0]),
        _number("beta 2", BETAS[1], published.betas[1]),
        _number("eps", EPS, published.eps),
        _number("gradient clip", here.clip_grad, published.clip_grad),
    ]
    return ScheduleComparison(rows, _not_compared(stored.finetune))


def _read(path: Path) -> Stored:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise GfmError(f"{path}: no such file; give a schedule file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GfmError(f"{path}: not a readable JSON file: {error}") from None
    try:
        stored = Stored.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise GfmError(f"{path}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    for name in set(stored.pretrain.decay) & set(stored.pretrain.no_decay):
        raise GfmError(f"{path}: pretrain: {name} stands in decay and in no_decay")
    return stored


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key} stands twice")
        found[key] = value
    return found


def _model(path: Path, published: StoredPretraining) -> nn.Module:
    """A narrow student and teacher with the file's blocks: names and axes of parameters do not depend on width."""
    names = published.decay + published.no_decay
    blocks: dict[int, set[int]] = {}
    for found in filter(None, map(BLOCK.match, names)):
        blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    for stage, numbers in blocks.items():
        if numbers != set(range(len(numbers))):
            raise GfmError(f"{path}: pretrain.decay and no_decay skip a block of encoder.layers.{stage}")
    if sorted(blocks) not in (list(range(count)) for count in (2, 3, 4)):
        raise GfmError(f"{path}: pretrain.decay and no_decay name no blocks encoder.layers.S.blocks.B of 2 to 4 stages")
    swin = Swin(
        image_px=32,
        embed_dim=4,
        depths=tuple(len(blocks[stage]) for stage in sorted(blocks)),
        num_heads=(1,) * len(blocks),
        window=1,
        patch_px=4,
        bands=3,
        mlp_ratio=1.0,
        qkv_bias=any(name.endswith(".attn.qkv.bias") for name in names),
    )
    return build_published(swin, swin, alpha=1.0)


def _number(quantity: str, found: float, expected: float) -> Row:
    return row(quantity, torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def _names(quantity: str, found: set[str], expected: list[str]) -> Row:
    """The error is the share of names that only one side has."""
    differing = sorted(found ^ set(expected)) + [name for name in set(expected) if expected.count(name) > 1]
    return Row(
        quantity,
        (len(expected),),
        largest=len(expected),
        difference=len(differing),
        error=len(differing) / max(1, len(expected)),
        note=", ".join(differing[:3]),
    )


def _not_compared(finetuning: StoredFinetuning | None) -> list[str]:
    if finetuning is None:
        return []
    what = f"finetune: {len(finetuning.groups)} groups, learning rates at {len(finetuning.lr_at_step)} steps"
    return [f"{what}: tests/downstream/adaptation/test_published_schedule.py compares them"]
