"""What classification and multi-label tasks share: one vector an image, and a head over it."""

from __future__ import annotations

from torch import Tensor, nn

from gfm.downstream.tasks.task import Batch, TaskModel, TaskSpec
from gfm.models.encoder import Encoder


class PooledTask(TaskModel):
    """A head over the last map's mean over positions: (B, C) -> logits (B, classes); one linear layer as built."""

    def __init__(self, encoder: Encoder, spec: TaskSpec) -> None:
        super().__init__(encoder, spec)
        self.primary = spec.metric or self.primary
        self.head: nn.Module = nn.Linear(encoder.channels[-1], self.outputs)

    @property
    def outputs(self) -> int:
        """Numbers that the head gives an image."""
        return len(self.spec.classes)

    def features(self, batch: Batch) -> Tensor:
        """The pooled features (B, C) of a batch, float."""
        batch.check(self.spec)
        return self._pooled(self.in_unit(batch.image), batch.present).float()

    def head_loss(self, features: Tensor, target: Tensor) -> Tensor:
        """The training loss of pooled features, a scalar."""
        return self._loss(self.head_logits(features), target)

    def head_logits(self, features: Tensor) -> Tensor:
        """Float logits of pooled features."""
        return self.head(features).float()  # type: ignore[no-any-return]

    def _logits(self, image: Tensor, present: Tensor | None) -> Tensor:
        return self.head_logits(self._pooled(image, present))

    def _pooled(self, image: Tensor, present: Tensor | None) -> Tensor:
        return self.pyramid(image, present)[-1].mean(dim=(2, 3))
