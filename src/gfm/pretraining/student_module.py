"""The published recipe on Lightning: masks drawn on the fly, the teacher left out of checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfm.models.gfm import StudentTeacher
from gfm.models.masking import block_mask
from gfm.params import Masking
from gfm.pretraining.step_module import StepModule

LOSSES = ("loss", "mim", "distillation")
TEACHER = "model.teacher."


class StudentModule(StepModule):
    """Continual pretraining of a StudentTeacher on images of `px` pixels a side."""

    model: StudentTeacher

    def __init__(self, model: StudentTeacher, *, masking: Masking, px: int, **shared: Any) -> None:
        super().__init__(model, loss_names=LOSSES, **shared)
        self.masking = masking
        self.blocks = px // masking.unit

    def masks(self, count: int, draw: int) -> Tensor:
        """Bool masks (count, blocks, blocks), True where masked, that depend on `draw` alone."""
        generator = torch.Generator().manual_seed(draw)
        return block_mask(count, blocks=self.blocks, ratio=self.masking.ratio, generator=generator)

    def _losses(self, images: Tensor, rows: Tensor, draw: int, train: bool) -> list[Tensor]:
        mask = self.masks(len(images), draw).to(images.device, non_blocking=True)
        losses = self.model(images, mask).losses
        return [losses.total, losses.mim, losses.distillation]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the teacher: it never changes, and the checkpoint's key holds the hash of its weights."""
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith(TEACHER)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complete the state with the teacher that was loaded from its folder."""
        super().on_load_checkpoint(checkpoint)
        own = self.state_dict()
        checkpoint["state_dict"].update({key: value for key, value in own.items() if key.startswith(TEACHER)})
