"""A training that has used its budget stops with a checkpoint, and goes on from there when the budget is raised."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from gfm.errors import GfmError, Stopped
from gfm.params import Budget
from gfm.pretraining.between_steps import BetweenSteps, processes_agree
from gfm.pretraining.spending import Spending
from gfm.pretraining.trainer import TimedCheckpoint
from gfm.tracking.carbon import Meter


class BudgetUsed(Stopped):
    """The training stopped at its budget; it can be resumed."""

    by = "budget"


class BudgetStop(BetweenSteps):
    """Raises BudgetUsed at the first of the limits, after writing a checkpoint. The last step is always allowed.

    Args:
        budget: hours of this training on the clock, kWh and kg CO2eq of its nodes; earlier parts count.
        key: of the pretraining, for the message.
    """

    def __init__(self, budget: Budget, spending: Spending, checkpoint: TimedCheckpoint, *, key: str) -> None:
        self.budget, self.spending, self.checkpoint, self.key = budget, spending, checkpoint, key

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed training whose budget was not raised does nothing."""
        files = self.checkpoint.files()
        if files and (used := self._used()) and trainer.global_step < self.checkpoint.batches.steps:
            raise self._stop(used, trainer.global_step, files[-1])

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where a limit is reached; all processes have the same figures, and so decide alike."""
        if trainer.global_step >= self.checkpoint.batches.steps or not processes_agree(trainer):
            return
        if used := self._used():
            raise self._stop(used, trainer.global_step, self.checkpoint.write(trainer, pl_module))

    def _used(self) -> tuple[str, float, float, str] | None:
        """The limit that is reached: its name, its value, what was used, and the unit."""
        limits = (
            ("hours", self.budget.hours, self.spending.seconds / 3600, "h"),
            ("kwh", self.budget.kwh, self.spending.kwh, "kWh"),
            ("kg_co2eq", self.budget.kg_co2eq, self.spending.kg_co2eq, "kg CO2eq"),
        )
        for name, limit, used, unit in limits:
            if limit is not None and used >= limit:
                return name, limit, used, unit
        return None

    def _stop(self, reached: tuple[str, float, float, str], step: int, checkpoint: Path) -> BudgetUsed:
        name, limit, used, unit = reached
        return BudgetUsed(
            f"{self.key}: stopped at step {step} of {self.checkpoint.batches.steps}, its budget.{name} = {limit:g} is "
            f"used ({used:.4g} {unit}); the checkpoint is {checkpoint}: raise {self.key}.budget.{name} and run the "
            "same command again to go on from there"
        )


def check_measurable(budget: Budget, meter: Meter, *, key: str) -> None:
    """Raise GfmError where energy is limited and cannot be measured."""
    limits = (("kwh", budget.kwh), ("kg_co2eq", budget.kg_co2eq))
    named = [f"{key}.budget.{name} = {limit:g}" for name, limit in limits if limit is not None]
    if named and not meter.measures:
        raise GfmError(
            f"{' and '.join(named)}: the energy is {meter.so_far().method}; mend that, or limit {key}.budget.hours"
        )
