"""Progress of a Lightning training: a bar on a terminal, plain lines with rate and time left elsewhere."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gfm.progress import LINE_EVERY_S, say


class LightningProgress(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Shows steps done, samples per second, time left and the loss.

    Args:
        what: what is being trained, in a few words.
        batch_size: samples a step, over all processes.
        total_steps: optimiser steps of the whole training.
    """

    def __init__(self, what: str, *, batch_size: int, total_steps: int) -> None:
        self.what = what
        self.batch_size = batch_size
        self.total_steps = total_steps
        self.rate = 0.0  # samples a second since this process began training
        self._bar: Any = None
        self._began = self._shown = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed training counts from where it resumed."""
        self._began = self._shown = time.monotonic()
        self._first_step = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total_steps, initial=self._first_step, desc=self.what, unit="step", dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step; read the loss from the device only when it is shown."""
        now = time.monotonic()
        done = trainer.global_step - self._first_step
        self.rate = done * self.batch_size / max(now - self._began, 1e-9)
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)
        if now - self._shown < (1.0 if self._bar is not None else LINE_EVERY_S):
            return
        self._shown = now
        loss = _loss(outputs)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.rate:.0f} samples/s{loss}")
            return
        left = (self.total_steps - trainer.global_step) * self.batch_size / max(self.rate, 1e-9)
        say(
            f"{self.what}: step {trainer.global_step}/{self.total_steps}"
            f" ({trainer.global_step / max(self.total_steps, 1):.0%}), {self.rate:.0f} samples/s, "
            f"{left:.0f} s left{loss}"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error stands on its own line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def quiet_lightning() -> None:
    """Keep Lightning's notices about itself (devices found, tips, loader workers) out of the user's terminal."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*dataloader is not resumable.*",  # the loaders of pretraining begin at the step that comes next
        ".*in eval mode at the start of training.*",  # a frozen teacher, or frozen batch norm: meant so
        ".*isinstance.treespec, LeafSpec.*",
        ".*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _loss(outputs: Any) -> str:
    value = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return "" if value is None else f", loss {float(value):.4f}"
