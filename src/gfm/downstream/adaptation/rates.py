"""Learning rates of every step: the project's own schedule, and the published one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from timm.scheduler import CosineLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gfm.downstream.module import Group, Rates
from gfm.params import FinetuneSchedule


def warmup_then_cosine(warmup_share: float) -> Rates:
    """Each group's `lr`: linear warm-up over a share of all steps, then a cosine to zero over the rest."""

    def make(optimiser: Optimizer, steps_per_epoch: int, epochs: int) -> LambdaLR:
        total = steps_per_epoch * epochs
        warmup = round(warmup_share * total)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            done = (step - warmup) / max(1, total - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        return LambdaLR(optimiser, factor)

    return make


def published_rates(schedule: FinetuneSchedule, batch_size: int) -> Rates:
    """timm's cosine with warm-up inside it, as the published fine-tuning uses it, rates scaled by the batch.

    timm multiplies each group's rate by its `lr_scale`, from the `lr` that `published_groups` gives.
    """
    scale = batch_size / schedule.reference_batch

    def make(optimiser: Optimizer, steps_per_epoch: int, epochs: int) -> CosineLRScheduler:
        return CosineLRScheduler(
            optimiser,
            t_initial=steps_per_epoch * epochs,
            lr_min=schedule.min_lr * scale,
            warmup_lr_init=schedule.warmup_lr * scale,
            warmup_t=round(schedule.warmup_epochs * steps_per_epoch),
            t_in_epochs=False,
        )

    return make


def published_base(schedule: FinetuneSchedule, batch_size: int) -> float:
    """The highest learning rate of the published schedule, scaled by the batch."""
    return schedule.base_lr * batch_size / schedule.reference_batch


def published_groups(groups: Iterable[Group], base: float, *, paper_compat: bool) -> list[Group]:
    """Groups for `published_rates`.

    A layer's rate is `lr_scale` times the head's at every step. The published code has `lr_scale` in `lr` already, so
    that it acts twice on the base rate and once on the others, and a layer whose base rate lies below the minimum rises
    towards it: `paper_compat` keeps that.
    """
    return [{**group, "lr": base * group["lr_scale"] if paper_compat else base} for group in groups]
