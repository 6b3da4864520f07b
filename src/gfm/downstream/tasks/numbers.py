"""What super-resolution and regression share: numbers for every pixel of a target that may lack some."""

from __future__ import annotations

from torch import Tensor

from gfm.downstream.tasks.task import TaskModel


class NumberTask(TaskModel):
    """Numbers (B, C, H, W) at the target's own size; NaN in a target means not measured: neither learned nor scored.

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
