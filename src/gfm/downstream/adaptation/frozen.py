"""A frozen encoder under a head that learns: a linear layer, or the decoder of a pixel task."""

from __future__ import annotations

from torch import Tensor

from gfm.downstream.adaptation.adaptation import HEAD, Adaptation, Files, head_tensors, restore_head
from gfm.downstream.tasks import TaskModel


class Frozen(Adaptation):
    """The head learns from flipped and turned images, so the encoder runs at every step, without gradients."""

    def prepare(self, model: TaskModel) -> None:
        model.encoder.freeze()

    def saved(self, model: TaskModel) -> dict[str, dict[str, Tensor]]:
        return {HEAD: head_tensors(model)}

    def restore(self, model: TaskModel, files: Files) -> None:
        restore_head(model, files[HEAD])
