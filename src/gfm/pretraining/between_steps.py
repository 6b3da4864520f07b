"""What acts between two optimiser steps, when a checkpoint would hold everything that the step left."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

AGREE_EVERY = 20  # steps between the moments at which several processes compare clocks: that is not free


class BetweenSteps(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Calls `between_steps` after every optimiser step, in every process.

    Then the step's row of the history is closed and, where an epoch of the recipe ended, its validation is done.
    """

    @abstractmethod
    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act after step `trainer.global_step`, counted from 1."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act, unless validation follows or the step has more parts."""
        ends_epoch = trainer.global_step % pl_module.steps_per_epoch == 0
        if (batch_idx + 1) % pl_module.parts == 0 and not (ends_epoch and pl_module.validates):
            self.between_steps(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act after the validation that ends an epoch."""
        self.between_steps(trainer, pl_module)


class EpochRows(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Has the module close its row of the history before other callbacks look: Lightning calls modules last."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the module that a batch is done."""
        pl_module.end_batch(batch_idx)


def processes_agree(trainer: Trainer) -> bool:
    """Whether after this step processes may talk to each other; always where there is one."""
    return bool(trainer.world_size == 1 or trainer.global_step % AGREE_EVERY == 0)
