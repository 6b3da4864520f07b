"""What both trainings here share on Lightning: steps, optimiser, history, finite losses, and state for a resume."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.params import Schedule
from gfm.pretraining.batch import Batch
from gfm.pretraining.collection import Rows
from gfm.pretraining.history import History, Row
from gfm.pretraining.optimiser import BETAS, EPS, learning_rate, parameter_groups
from gfm.pretraining.sharding import of_this_process


class StepModule(LightningModule):  # type: ignore[misc]  # lightning is untyped here
    """Trains `model` on batches of uint8 crops; a subclass says what the losses of a batch are.

    One Lightning "epoch" is the whole training (see StepBatches): `steps_per_epoch` says where the recipe's epochs
    end, and `report` gets an epoch's row of the history when it is complete.

    Args:
        model: what is trained; parameters without gradient are left alone.
        loss_names: of what `_losses` returns, the one that is minimised first.
        schedule, batch_size, epochs, steps_per_epoch, weight_decay: the optimiser's.
        train_rows: to name images in errors.
        parts: batches that make up one step (gradient accumulation).
        key: parameters of this training, for errors: `pretrain.NAME` or `teacher`.
        lr_key: the parameter to lower when the loss is not finite.
        validates: whether validation follows every epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss_names: Sequence[str],
        schedule: Schedule,
        batch_size: int,
        epochs: int,
        steps_per_epoch: int,
        weight_decay: float,
        train_rows: Rows,
        seed: int,
        key: str,
        lr_key: str,
        validates: bool,
        report: Callable[[Row], None],
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.lr_at = learning_rate(schedule, batch_size=batch_size, epochs=epochs, steps_per_epoch=steps_per_epoch)
        self.weight_decay = weight_decay
        self.steps_per_epoch = steps_per_epoch
        self.train_rows = train_rows
        self.seed = seed
        self.parts = parts
        self.key, self.lr_key = key, lr_key
        self.validates = validates
        self.report = report
        self.history = History(loss_names)
        self._unchecked: tuple[int, Tensor, Tensor] | None = None  # step, loss, row indices

    @abstractmethod
    def _losses(self, batch: Batch, train: bool) -> list[Tensor]:
        """Scalars of a batch; what is random must come from the batch or from torch's generator, seeded by the step."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with the published groups, and its learning rate per step."""
        # LambdaLR multiplies; a base of 1 makes its factor the learning rate itself.
        # The fused step is a quarter of a small CPU training's time; Lightning cannot clip under it in mixed precision.
        fused = self.trainer.precision == "32-true"
        groups = parameter_groups(self.model, self.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, eps=EPS, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.lr_at)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tie what is random inside the network to the step, so that a resumed run repeats it; check the last loss."""
        torch.manual_seed(self._draw(self.global_step * self.parts + batch_idx % self.parts))
        self.check_finite()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step's loss."""
        losses = self._losses(batch, True)
        # Looked at before the next step: by then the device has it, and nothing waits.
        self._unchecked = (self.global_step, losses[0].detach(), batch.rows)
        self.history.add("train", losses, len(batch.rows))
        return losses[0]

    def end_batch(self, batch_idx: int) -> None:
        """Close the epoch's row where an epoch of the recipe ends; EpochRows calls it after every batch."""
        if (batch_idx + 1) % self.parts or self.global_step % self.steps_per_epoch:
            return
        self.check_finite()
        lr = self.lr_at(self.global_step - 1)
        self.history.close(epoch=self.global_step // self.steps_per_epoch, step=self.global_step, lr=lr)
        if not self.validates:
            self.report(self.history.rows[-1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Losses on held-out places, always with the same crops and masks."""
        counts = batch_idx < self.trainer.val_dataloaders.batch_sampler.own  # of FixedBatches
        self.history.add("val", self._losses(batch, False), len(batch.rows) if counts else 0)

    def on_validation_epoch_end(self) -> None:
        """Add the validation losses to the row of the epoch that has just ended."""
        self.history.close_validation()
        self.report(self.history.rows[-1])

    def check_finite(self) -> None:
        """Raise GfmError naming the images if the last step's loss was not a finite number."""
        if self._unchecked is None:
            return
        step, loss, rows = self._unchecked
        self._unchecked = None
        if not torch.isfinite(loss):
            ids = [self.train_rows.id(row) for row in rows.tolist()]
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            raise GfmError(
                f"{self.key}: the loss became {float(loss)} at step {step} on images {', '.join(ids[:5])}{more}; "
                f"lower {self.lr_key}, or look at these images"
            )

    def check_weights(self) -> None:
        """Raise GfmError if a weight is not a finite number: a finite loss can have gradients that are none."""
        trained = (of_this_process(weight) for weight in self.parameters() if weight.requires_grad)
        finite = torch.stack([torch.isfinite(weight).all() for weight in trained]).all()
        if not self.trainer.strategy.reduce_boolean_decision(bool(finite)):
            raise GfmError(
                f"{self.key}: weights became infinite or no number by step {self.global_step}; lower {self.lr_key}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history."""
        checkpoint["history"] = self.history.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history."""
        self.history.restore(checkpoint["history"], first=self.global_rank == 0)

    def _draw(self, step: int) -> int:
        """A seed for one batch of one process."""
        rank: int = self.global_rank
        return ((self.seed + 1) * 1_000_003 + step) * 4096 + rank
