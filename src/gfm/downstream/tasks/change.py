"""Where two images of the same ground differ in a way that counts as change."""

from __future__ import annotations

import torch
from torch import Tensor

from gfm.downstream.tasks.dense import DenseTask, PixelCounts
from gfm.downstream.tasks.task import Scores


class Change(DenseTask):
    """One encoder for both dates, absolute difference of the features at every level, decoder; F1 of change."""

    @property
    def primary(self) -> str:  # type: ignore[override]
        return "mean_f1" if self.spec.positive is None else "f1"

    def scores(self) -> Scores:
        return PixelCounts(self.spec, self.primary)

    def _features(self, image: Tensor, present: Tensor | None) -> list[Tensor]:
        # Both dates in one pass, so that batch statistics are shared between them.
        maps = self.encoder(torch.cat([image[:, 0], image[:, 1]]))
        return [(first - second).abs() for first, second in (level.chunk(2) for level in maps)]
