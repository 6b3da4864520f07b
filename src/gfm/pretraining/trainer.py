"""The Lightning trainer of this package: device and processes, checkpoints by the clock, and resuming from them."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from gfm.compute import Device, use_device
from gfm.errors import GfmError
from gfm.lightning_progress import LightningProgress, quiet_lightning
from gfm.output_file import write_whole
from gfm.pretraining.between_steps import BetweenSteps, EpochRows, processes_agree
from gfm.pretraining.checkpoint_io import InPlaceCheckpoints
from gfm.pretraining.data import StepBatches
from gfm.progress import say

CHECKPOINTS = Path("checkpoints")
RUN_FILE = "run_id"  # beside the checkpoints: the run in MLflow that they are of


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
    device: Device,
    *,
    steps: int,
    steps_per_epoch: int,
    progress: LightningProgress,
    validates: bool,
    parts: int = 1,
    **settings: Any,
) -> Trainer:
    """A trainer for `steps` optimiser steps that validates after each of the recipe's epochs.

    A step gathers the gradients of `parts` batches. `settings` are Lightning's own (precision, gradient_clip_val,
    callbacks).
    """
    quiet_lightning()
    processes = Processes.from_environment()
    callbacks = [progress, EpochRows(), *settings.pop("callbacks", [])]
    return Trainer(
        accelerator=use_device(device),
        devices=processes.of_this_node,
        num_nodes=processes.count // processes.of_this_node,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=parts,
        val_check_interval=steps_per_epoch * parts if validates else None,
        check_val_every_n_epoch=None if validates else 1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[InPlaceCheckpoints()],
        **settings,
    )


def check_batch(rows: int, batch_size: int, processes: Processes, *, key: str, parts: int = 1) -> None:
    """Raise GfmError where no whole batch can be filled, or where processes and their parts cannot share it evenly."""
    if rows < batch_size:
        raise GfmError(
            f"{key} = {batch_size}, but the collection has {rows} training images for it; "
            "lower it, or add images to geopile.sources"
        )
    if batch_size % (processes.count * parts):
        each = f" in {parts} parts each" if parts > 1 else ""
        raise GfmError(
            f"{key} = {batch_size} cannot be shared by {processes.count} processes{each}; "
            f"use a multiple of {processes.count * parts}"
        )


class TimedCheckpoint(BetweenSteps):
    """Writes `checkpoints/NAME/step-N.ckpt` every few minutes, and every few steps if asked; whole or not at all.

    `key` says what the training depends on (parameters, data, teacher): a checkpoint of another key is not resumed.
    The last `keep` stay until the training ends.
    """

    def __init__(
        self,
        name: str,
        key: Mapping[str, Any],
        batches: StepBatches,
        *,
        minutes: float,
        steps: int | None = None,
        keep: int = 1,
    ) -> None:
        self.folder = CHECKPOINTS / name
        self.key = json.dumps(key, indent=1, sort_keys=True)
        self.seconds, self.steps, self.keep = minutes * 60, steps, keep
        self.batches = batches
        self._written = time.monotonic()

    def files(self) -> list[Path]:
        """The finished checkpoints, the latest one last."""
        return sorted(self.folder.glob("step-*.ckpt"))

    def find(self, processes: Processes) -> Path | None:
        """The checkpoint to resume from; one that belongs to other parameters or data is removed, and said so.

        Every process finds the same; only the first one removes.
        """
        key_file = self.folder / "key.json"
        # The key before the files: while the first process removes, another must not see old files with a new key.
        key = key_file.read_bytes() if key_file.is_file() else None
        files = self.files()
        whole = [file for file in files if zipfile.is_zipfile(file)]  # as torch writes them
        if whole and key == self.key.encode():
            if whole != files and not processes.rank:
                say(f"{files[-1]}: cut off or damaged; going on from the one before")
            return whole[-1]
        if processes.rank:
            return None
        if files:
            why = "made with other parameters or data" if key and whole else "it or its key.json is missing or damaged"
            say(f"{files[-1]}: {why}; starting from the beginning")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        write_whole(key_file, self.key)
        return None

    def tracked_run(self) -> str | None:
        """The run in MLflow that the checkpoints are of, if one was recorded; ask after `find`."""
        file = self.folder / RUN_FILE
        return file.read_text(encoding="utf-8", errors="replace").strip() or None if file.exists() else None

    def belongs_to(self, run_id: str | None) -> None:
        """Remember the run in MLflow, for the training that resumes from the checkpoints."""
        if run_id is not None:
            write_whole(self.folder / RUN_FILE, run_id)

    def remove(self) -> None:
        """Remove the checkpoint of a finished training."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have the loader begin with the batch of the next step."""
        self.batches.first_step = checkpoint["global_step"]
        if trainer.is_global_zero:
            say(f"{self.folder}: resuming at step {checkpoint['global_step']} of {self.batches.steps}")

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write when it is time; after the last step the encoder itself is written."""
        step = trainer.global_step
        if step >= self.batches.steps:
            return
        due = self.steps is not None and step % self.steps == 0
        if not due and processes_agree(trainer):
            due = trainer.strategy.broadcast(time.monotonic() - self._written >= self.seconds)
        if due:
            self.write(trainer, pl_module)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        """Write a checkpoint of this step now; every process must call it.

        GfmError where loss or weights are not finite: the checkpoints of before stay.
        """
        pl_module.check_finite()
        pl_module.check_weights()
        final = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        unfinished = self.folder / "unfinished.ckpt"
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())  # a machine that loses its power must not leave a name without its bytes
            unfinished.replace(final)
            for old in self.files()[: -self.keep]:
                old.unlink()
        trainer.strategy.barrier()  # nobody leaves, and has the others ended, before the file has its name
        self._written = time.monotonic()
        return final
