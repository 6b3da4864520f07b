"""One measured number an image: yield of a field, people in a tile."""

from __future__ import annotations

import torch
from torch import Tensor

from gfm.downstream.tasks.numbers import Errors, NumberTask
from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.tasks.task import Batch, Panel, Picture, Scores, middle_date


class Quantity(PooledTask, NumberTask):
    """Linear layer over the pooled last map; MSE; R2, with RMSE and MAE in the number's unit.

    What the layer gives is in standard deviations from the mean of the training numbers. `reference` is that mean.
    """

    primary = "r2"
    reference = "train-mean"

    @property
    def outputs(self) -> int:
        return 1

    def scores(self) -> Scores:
        return Errors()

    def refer(self, batch: Batch) -> Tensor:
        return torch.full_like(batch.target, self.spec.number_mean)

    def head_logits(self, features: Tensor) -> Tensor:
        return self.spec.number_mean + self.spec.number_std * super().head_logits(features)

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        unit = f" {self.spec.unit}" if self.spec.unit else ""
        caption = f"predicted: {float(logits):.3g}{unit}\ntrue: {float(target):.3g}{unit}"
        return [Panel(middle_date(images), caption)]
