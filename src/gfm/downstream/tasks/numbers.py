"""What super-resolution and regression share: numbers, some of which may not be measured, and their errors."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

from gfm.downstream.tasks.task import Scores, TaskModel, primary_first


class NumberTask(TaskModel):
    """Numbers (B, C, H, W) at the target's own size, or (B, 1); NaN means not measured: neither learned nor scored.

    The loss is the mean distance (l1) or squared distance (mse) from the measured pixels, in standard deviations of
    the training targets where the spec knows them, so that learning rates do not depend on a unit.
    """

    default_loss = "mse"

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        measured = target.isfinite()
        apart = (logits - target)[measured] / self.spec.number_std
        kind = self.spec.loss or self.default_loss
        total = apart.abs().sum() if kind == "l1" else apart.square().sum()
        return total / measured.sum().clamp(min=1)  # a batch of nodata teaches nothing


class Errors(Scores):
    """R2, RMSE and MAE over all that is measured in a split; of the last two, less is better."""

    primary = "r2"

    def __init__(self) -> None:
        self.metrics = {"r2": R2Score(), "rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError()}
        for metric in self.metrics.values():
            metric.set_dtype(torch.float64)  # R2 is a difference of sums of squares

    def update(self, logits: Tensor, target: Tensor) -> None:
        measured = target.isfinite()
        if not measured.any():
            return
        found, truth = logits[measured].double(), target[measured].double()
        for metric in self.metrics.values():
            metric.to(logits.device).update(found, truth)

    def compute(self) -> dict[str, float]:
        return primary_first({name: float(metric.compute()) for name, metric in self.metrics.items()}, self.primary)
