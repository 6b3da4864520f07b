"""AdamW's parameter groups and the learning rate of every step, as published."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from gfm.params import Schedule

BETAS = (0.9, 0.999)
EPS = 1e-8
# Vectors whose shape hides that they are one token or one offset.
UNDECAYED = {"mask_token", "pos_embed", "cls_token", "reg_token", "dist_token"}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW groups of the trainable parameters: no decay for 1-d parameters, biases and tokens.

    Swin's relative-position tables are decayed, as in the published code.
    """
    decayed, undecayed = split_by_decay(model)
    named = dict(model.named_parameters())
    return [
        {"params": [named[name] for name in decayed], "weight_decay": weight_decay},
        {"params": [named[name] for name in undecayed], "weight_decay": 0.0},
    ]


def split_by_decay(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the trainable parameters that weight decay acts on, and of those it leaves alone."""
    decayed: list[str] = []
    undecayed: list[str] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        alone = parameter.ndim <= 1 or name.endswith(".bias") or name.rsplit(".", 1)[-1] in UNDECAYED
        (undecayed if alone else decayed).append(name)
    return decayed, undecayed


def learning_rate(schedule: Schedule, *, batch_size: int, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate at a step: linear warm-up, then a cosine over all steps, all scaled by the batch.

    As published, the cosine runs over the whole training: the warm-up covers its first part, and leaving the warm-up
    the rate drops from the base rate to the cosine at that step.
    """
    scale = batch_size / schedule.reference_batch
    base, first, last = (scale * lr for lr in (schedule.base_lr, schedule.warmup_lr, schedule.min_lr))
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    steps = epochs * steps_per_epoch

    def at(step: int) -> float:
        if step < warmup:
            return first + step * (base - first) / warmup
        return last + 0.5 * (base - last) * (1 + math.cos(math.pi * min(step, steps) / steps))

    return at
