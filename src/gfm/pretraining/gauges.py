"""Gauges of a running training: speed, waiting for data, utilisation, memory, energy; live in MLflow, then run.json."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes import Recipe
from gfm.pretraining.spending import Spending
from gfm.pretraining.throughput import flops_per_image, matmul_peak
from gfm.tracking.runs import Run

LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class _Count:
    steps: int = 0
    seconds: float = 0.0  # in steps and waiting for their batches: no validation, probe or checkpoint
    waited: float = 0.0

    def since(self, other: _Count) -> _Count:
        return _Count(self.steps - other.steps, self.seconds - other.seconds, self.waited - other.waited)


class Gauges(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Measures in the first process, and logs every LOG_EVERY_S what happened since the last time.

    - `samples_per_s`: of all processes, over the time in training steps.
    - `data_wait_share`: of that time, the part spent waiting for the loader.
    - `mfu`, model FLOPs utilisation: `gflops_per_image` (see flops_per_image) at that rate, over `peak_tflops` (see
      matmul_peak) of all processes; absent where nothing could be counted.
    - `peak_memory_gb`: the most that torch had allocated on the GPU, or this process on a CPU, 1e9 bytes.
    - `kwh_so_far`, `kg_co2eq_so_far`, `kg_co2eq_per_1000_samples`: resumes included; absent where not measured.

    The clock reads the host only: a step waits for the loss of the step before it anyhow, so the two stay together.
    `final` holds the same over the whole training since it began or resumed, without its first step, which warms up.
    """

    def __init__(
        self, recipe: Recipe, spending: Spending, run: Run, *, batch_size: int, checkpointed: bool = False
    ) -> None:
        self.recipe, self.spending, self.run = recipe, spending, run
        self.batch_size, self.checkpointed = batch_size, checkpointed
        self.final: dict[str, float] = {}
        self._flops = self._peak = 0.0
        self._steps, self._seconds, self._began = 0, 0.0, 0.0
        self._first, self._last = _Count(), _Count()
        self._logged = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what the device can do."""
        if not trainer.is_global_zero:
            return
        device = pl_module.device
        self._peak = matmul_peak(device, trainer.precision)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._logged = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Start the clock of a batch; count the operations of the first."""
        if not trainer.is_global_zero:
            return
        if self._flops == 0.0:
            context = trainer.precision_plugin.forward_context()
            self._flops = flops_per_image(self.recipe, batch, context, checkpointed=self.checkpointed)
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock of a batch; log where it is time."""
        if not trainer.is_global_zero:
            return
        self._seconds += time.perf_counter() - self._began
        if (batch_idx + 1) % pl_module.parts:
            return
        self._steps += 1
        if self._steps == 1:
            self._first = self._last = self._count(trainer)
        elif time.monotonic() - self._logged >= LOG_EVERY_S:
            count = self._count(trainer)
            self.run.metrics(self._values(trainer, count.since(self._last)), step=trainer.global_step)
            self._last, self._logged = count, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up."""
        if not trainer.is_global_zero or not self._steps:
            return
        whole = self._count(trainer)
        self.final = self._values(trainer, whole.since(self._first) if whole.steps > 1 else whole)
        self.run.metrics(self.final, step=trainer.global_step)

    def _count(self, trainer: Trainer) -> _Count:
        waited = trainer.train_dataloader.waited_s  # a TimedLoader
        return _Count(self._steps, self._seconds + waited, waited)

    def _values(self, trainer: Trainer, count: _Count) -> dict[str, float]:
        rate = count.steps * self.batch_size / max(count.seconds, 1e-9)
        values = {
            "samples_per_s": round(rate, 2),
            "data_wait_share": round(count.waited / max(count.seconds, 1e-9), 4),
            "peak_memory_gb": round(_peak_memory(trainer.strategy.root_device) / 1e9, 3),
        }
        if self._flops:
            values |= {
                "mfu": round(rate * self._flops / (self._peak * trainer.world_size), 4),
                "gflops_per_image": round(self._flops / 1e9, 6),
                "peak_tflops": round(self._peak / 1e12, 4),
            }
        if self.spending.kwh:
            seen = trainer.global_step * self.batch_size
            values |= {
                "kwh_so_far": self.spending.kwh,
                "kg_co2eq_so_far": self.spending.kg_co2eq,
                "kg_co2eq_per_1000_samples": self.spending.kg_co2eq / seen * 1000,
            }
        return values


def _peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
