"""The Lightning side of fine-tuning: optimiser, schedule, and choosing the epoch on validation alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from gfm.downstream.data import turned
from gfm.downstream.tasks.task import Batch, Scores, TaskModel
from gfm.errors import GfmError
from gfm.params import Finetune


class Finetuning(LightningModule):  # type: ignore[misc]
    """Trains a task's model and remembers the epoch that was best on validation.

    Args:
        model: encoder and head.
        settings: learning rates, weight decay and warm-up.
        total_steps: optimiser steps of the whole training, for the schedule.
        seed: of the augmentation.
    """

    def __init__(self, model: TaskModel, settings: Finetune, *, total_steps: int, seed: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.total_steps = total_steps
        self.turns = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, float]] = []
        self.best_scores: dict[str, float] = {}
        self.best_epoch = -1
        self.test_scores: dict[str, float] = {}
        self._best_state: dict[str, Tensor] = {}
        self._losses: list[Tensor] = []
        self._scores: Scores = model.scores()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """The loss of a batch, each sample flipped and turned at random."""
        loss = self.model.loss(turned(batch, self.turns))
        self._losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin counting."""
        self._scores = self.model.scores()

    def validation_step(self, batch: Batch, number: int) -> None:
        """Count a batch."""
        self._scores.update(self.model.predict(batch), batch.target)

    def on_validation_epoch_end(self) -> None:
        """Note the epoch; keep its weights when it is the best so far (the earlier one of equals)."""
        scores = self._scores.compute()
        score = scores[self.model.primary]
        loss = float(torch.stack(self._losses).mean()) if self._losses else math.nan
        self._losses = []
        if not math.isfinite(loss):
            raise GfmError(
                f"tasks.{self.model.spec.name}: the training loss of epoch {self.current_epoch + 1} is {loss}; "
                "lower finetune.lr and finetune.encoder_lr, or set finetune.precision = 32-true"
            )
        epoch = self.current_epoch + 1
        self.history.append({"epoch": epoch, "step": self.global_step, "train_loss": loss, "val_score": score})
        if not self.best_scores or score > self.best_scores[self.model.primary]:
            self.best_scores, self.best_epoch = scores, epoch
            self._best_state = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def restore_best(self) -> None:
        """Bring back the weights of the best epoch."""
        self.model.load_state_dict(self._best_state)

    def on_test_epoch_start(self) -> None:
        """Begin counting."""
        if self.test_scores:
            raise RuntimeError("the test split was scored already; it is scored once, after the epoch is chosen")
        self._scores = self.model.scores()

    def test_step(self, batch: Batch, number: int) -> None:
        """Count a batch."""
        self._scores.update(self.model.predict(batch), batch.target)

    def on_test_epoch_end(self) -> None:
        """Keep the scores of the whole split."""
        self.test_scores = self._scores.compute()

    def configure_optimizers(self) -> Any:
        """AdamW with learning rates of their own for encoder and head; warm-up, then cosine to zero, per step."""
        groups = []
        for lr, decay, parameters in self._groups():
            groups.append({"params": parameters, "lr": lr, "weight_decay": decay})
        optimiser = torch.optim.AdamW(groups, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[tuple[float, float, list[torch.nn.Parameter]]]:
        """Learning rate, weight decay and parameters; vectors (norms, biases) are not decayed."""
        encoder = list(self.model.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        head = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        groups = []
        for lr, parameters in ((self.settings.encoder_lr, encoder), (self.settings.lr, head)):
            groups.append((lr, self.settings.weight_decay, [p for p in parameters if p.ndim > 1]))
            groups.append((lr, 0.0, [p for p in parameters if p.ndim <= 1]))
        return [group for group in groups if group[2]]

    def _rate(self, step: int) -> float:
        warmup = round(self.settings.warmup_share * self.total_steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, self.total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
