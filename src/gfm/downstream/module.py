"""The Lightning side of fine-tuning: optimiser, schedule, and choosing the epoch on validation alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import torch
from lightning.pytorch import LightningModule
from timm.scheduler.scheduler import Scheduler
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from gfm.downstream.tasks.task import Batch, Scores, TaskSpec
from gfm.errors import GfmError


class Diverged(GfmError):
    """A training whose loss or score is no finite number."""


class Learner(Protocol):
    """What is trained: a task's model, or its head on features."""

    spec: TaskSpec

    @property
    def primary(self) -> str: ...

    def loss(self, batch: Batch) -> Tensor: ...

    def predict(self, batch: Batch) -> Tensor: ...

    def scores(self) -> Scores: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Group(TypedDict):
    """Parameters with a learning rate and a weight decay of their own, as torch's optimisers take them."""

    name: str
    params: list[Parameter]
    lr: float
    lr_scale: float  # what timm's schedulers multiply the rate by; torch's do not read it
    weight_decay: float


# A learning-rate scheduler, torch's or timm's, for an optimiser, the steps of an epoch and the number of epochs.
Rates = Callable[[Optimizer, int, int], Any]


class Finetuning(LightningModule):  # type: ignore[misc]
    """Trains a model and remembers the epoch that was best on validation.

    Args:
        model: what is trained; a module.
        groups: of AdamW.
        schedule: the learning rates, for the optimiser.
        augment: makes of a batch what is learned from.
    """

    def __init__(
        self,
        model: Learner,
        *,
        groups: Sequence[Group],
        schedule: Callable[[Optimizer], Any],
        augment: Callable[[Batch], Batch],
    ) -> None:
        super().__init__()
        self.model = model
        self.groups = groups
        self.schedule = schedule
        self.augment = augment
        self.history: list[dict[str, float]] = []
        self.best_scores: dict[str, float] = {}
        self.best_epoch = -1
        self.test_scores: dict[str, float] = {}
        self._best_state: dict[str, Tensor] = {}
        self._losses: list[Tensor] = []
        self._scores: Scores = model.scores()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """The loss of a batch, augmented."""
        loss = self.model.loss(self.augment(batch))
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
            raise Diverged(
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
        """AdamW; the schedule moves with every step."""
        optimiser = torch.optim.AdamW([dict(group) for group in self.groups], fused=True)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": self.schedule(optimiser), "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Move the schedule on; timm's are told the step."""
        if isinstance(scheduler, Scheduler):
            scheduler.step_update(self.global_step)
        else:
            scheduler.step()
