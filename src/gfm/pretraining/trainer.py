"""The Lightning trainer of this package: device and processes, checkpoints by the clock, and resuming from them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gfm.compute import Device, use_device
from gfm.errors import GfmError
from gfm.lightning_progress import LightningProgress, quiet_lightning
from gfm.pretraining.data import StepBatches
from gfm.progress import say

CHECKPOINTS = Path("checkpoints")


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes train together and which one this is, as torchrun says; one where it does not."""

    rank: int
    count: int
    of_this_node: int

    @classmethod
    def from_environment(cls) -> Processes:
        """Read torchrun's variables."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        return cls(int(os.environ.get("RANK", "0")), count, int(os.environ.get("LOCAL_WORLD_SIZE", str(count))))


def make_trainer(
    device: Device, *, steps: int, steps_per_epoch: int, progress: LightningProgress, validates: bool, **settings: Any
) -> Trainer:
    """A trainer for `steps` optimiser steps that validates after each of the recipe's epochs.

    `settings` are Lightning's own (precision, gradient_clip_val, callbacks).
    """
    quiet_lightning()
    processes = Processes.from_environment()
    callbacks = [progress, *settings.pop("callbacks", [])]
    return Trainer(
        accelerator=use_device(device),
        devices=processes.of_this_node,
        num_nodes=processes.count // processes.of_this_node,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=steps_per_epoch if validates else None,
        check_val_every_n_epoch=None if validates else 1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **settings,
    )


def check_batch(rows: int, batch_size: int, processes: Processes, *, key: str) -> None:
    """Raise GfmError where no whole batch can be filled, or where processes cannot share it evenly."""
    if rows < batch_size:
        raise GfmError(
            f"{key} = {batch_size}, but the collection has {rows} training images for it; "
            "lower it, or add images to geopile.sources"
        )
    if batch_size % processes.count:
        raise GfmError(f"{key} = {batch_size} cannot be shared by {processes.count} processes; use a multiple of it")


class TimedCheckpoint(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Writes `checkpoints/NAME/last.ckpt` every few minutes, whole or not at all.

    `key` says what the training depends on (parameters, data, teacher): a checkpoint of another key is not resumed.
    """

    def __init__(self, name: str, key: Mapping[str, Any], batches: StepBatches, *, minutes: float) -> None:
        self.folder = CHECKPOINTS / name
        self.file = self.folder / "last.ckpt"
        self.key = json.dumps(key, indent=1, sort_keys=True)
        self.seconds = minutes * 60
        self.batches = batches
        self._written = time.monotonic()

    def find(self) -> Path | None:
        """The checkpoint to resume from; one that belongs to other parameters or data is removed, and said so."""
        key_file = self.folder / "key.json"
        if self.file.exists() and key_file.exists() and key_file.read_text(encoding="utf-8") == self.key:
            return self.file
        if self.folder.exists():
            if self.file.exists():
                say(f"{self.file}: made with other parameters or data; starting from the beginning")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        key_file.write_text(self.key, encoding="utf-8")
        return None

    def remove(self) -> None:
        """Remove the checkpoint of a finished training."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have the loader begin with the batch of the next step."""
        self.batches.first_step = checkpoint["global_step"]
        say(f"{self.file}: resuming at step {checkpoint['global_step']} of {self.batches.steps}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time, but never between an epoch's last step and its validation."""
        if trainer.global_step % self.batches.steps_per_epoch == 0 or (
            trainer.world_size > 1 and trainer.global_step % 20
        ):
            return  # processes agree on the time only now and then, for that is not free
        if not trainer.strategy.broadcast(time.monotonic() - self._written >= self.seconds):
            return
        if hasattr(pl_module, "check_finite"):
            pl_module.check_finite()
        unfinished = self.folder / "unfinished.ckpt"
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(self.file)
        self._written = time.monotonic()
