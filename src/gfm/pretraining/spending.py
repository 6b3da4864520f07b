"""What a training has used so far: time and energy, resumes and all nodes included."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from gfm.pretraining.between_steps import BetweenSteps, processes_agree
from gfm.tracking.carbon import Energy, Meter


class Spending(BetweenSteps):
    """Adds what this process has used to what the checkpoint says was used before.

    Every process holds the same figures: the longest time, and the energy of all nodes. Between a kill and the
    checkpoint before it, neither the work nor its cost is counted.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.seconds = self.kwh = self.kg_co2eq = 0.0
        self._before = (0.0, 0.0, 0.0)
        self._measured_before = True
        self._began = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know what was used before the first step."""
        self._update(trainer)

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at clock and meter."""
        if processes_agree(trainer):
            self._update(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look a last time."""
        self._update(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints must keep."""
        measured = self._measured_before and self.meter.measures
        return {"seconds": self.seconds, "kwh": self.kwh, "kg_co2eq": self.kg_co2eq, "measured": measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._before = (state_dict["seconds"], state_dict["kwh"], state_dict["kg_co2eq"])
        self._measured_before = state_dict["measured"]

    def whole(self, energy: Energy, resumed_at: int | None) -> Energy:
        """`energy`, which covers the time since the training began or resumed, with what was used before that."""
        if resumed_at is None:
            return energy
        seconds, kwh, kg = self._before
        energy = energy.over(seconds + energy.seconds)
        if energy.kwh is None or energy.kg_co2eq is None:
            return energy
        if not self._measured_before:
            method = f"not measured before step {resumed_at}, where it was resumed"
            return replace(energy, kwh=None, kg_co2eq=None, method=method, power_source="none")
        method = f"{energy.method}; resumed at step {resumed_at}, without what a kill lost after its last checkpoint"
        return replace(energy, kwh=energy.kwh + kwh, kg_co2eq=energy.kg_co2eq + kg, method=method)

    def _update(self, trainer: Trainer) -> None:
        energy = self.meter.so_far()
        seconds, kwh, kg = time.monotonic() - self._began, energy.kwh or 0.0, energy.kg_co2eq or 0.0
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            seconds = float(trainer.strategy.reduce(torch.tensor(seconds, device=device), reduce_op="max"))
            kwh, kg = trainer.strategy.reduce(torch.tensor([kwh, kg], device=device), reduce_op="sum").tolist()
        self.seconds, self.kwh, self.kg_co2eq = (
            used + before for used, before in zip((seconds, kwh, kg), self._before, strict=True)
        )


def over_nodes(energy: Energy, trainer: Trainer) -> Energy:
    """The energy of all nodes together, the same in every process; each node's first process has measured its own."""
    if trainer.num_nodes == 1:
        return energy
    found: list[Energy | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, energy)
    measured = [one for one in found if one and one.kwh is not None and one.kg_co2eq is not None]
    if not measured:
        return energy
    first = measured[0]
    return replace(
        first,
        kwh=sum(one.kwh or 0.0 for one in measured),
        kg_co2eq=sum(one.kg_co2eq or 0.0 for one in measured),
        computed_kwh=_sum([one.computed_kwh for one in measured]),
        computed_kg_co2eq=_sum([one.computed_kg_co2eq for one in measured]),
        seconds=energy.seconds,
        method=f"sum of {len(measured)} of {trainer.num_nodes} nodes, the first by {first.method}",
    )


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
