"""What looks on while a pretraining runs, in the order in which it must act: cost, speed, average, probe, saving."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch import Callback

from gfm.models.encoder import Encoder
from gfm.pretraining.budget import BudgetStop, check_measurable
from gfm.pretraining.ema import WeightAverage
from gfm.pretraining.gauges import Gauges
from gfm.pretraining.job import Job
from gfm.pretraining.probe import ProbeCallback, ProbeData
from gfm.pretraining.recipes import Recipe
from gfm.pretraining.spending import Spending
from gfm.pretraining.throughput import shapes_only
from gfm.pretraining.trainer import TimedCheckpoint
from gfm.tracking.carbon import Meter
from gfm.tracking.runs import Run


@dataclass(frozen=True, slots=True)
class Watch:
    """The callbacks of one training."""

    spending: Spending
    gauges: Gauges
    average: WeightAverage | None
    probe: ProbeCallback | None
    checkpoint: TimedCheckpoint
    budget: BudgetStop

    @classmethod
    def over(
        cls,
        job: Job,
        recipe: Recipe,
        average: WeightAverage | None,
        checkpoint: TimedCheckpoint,
        meter: Meter,
        run: Run,
    ) -> Watch:
        """Those that the parameters ask for; GfmError where a budget or a probe cannot be had."""
        settings = job.run
        if job.processes.rank == 0:
            check_measurable(settings.budget, meter, key=job.key)
        spending = Spending(meter)
        gauges = Gauges(
            # The first process alone counts operations; sharded networks run in all processes or not at all.
            shapes_only(recipe) if job.sharded else recipe,
            spending,
            run,
            batch_size=settings.batch_size,
            checkpointed=settings.checkpoint_activations,
        )
        encoder = average.encoder if average else recipe.student
        probe = _probe(job, encoder, run)
        return cls(
            spending, gauges, average, probe, checkpoint, BudgetStop(settings.budget, spending, checkpoint, key=job.key)
        )

    @property
    def callbacks(self) -> list[Callback]:
        """In their order: a checkpoint must hold what the others learned in the step."""
        every = (self.spending, self.gauges, self.average, self.probe, self.checkpoint, self.budget)
        return [callback for callback in every if callback is not None]

    def results(self) -> dict[str, float]:
        """The last values, for run.json and the model card."""
        return self.gauges.final | (self.probe.results() if self.probe else {})


def _probe(job: Job, encoder: Encoder, run: Run) -> ProbeCallback | None:
    probe = job.run.probe
    if probe is None:
        return None

    def report(row: dict[str, float]) -> None:
        run.metrics({f"probe_{name}": row[name] for name in ("knn", "linear")}, step=int(row["step"]))

    return ProbeCallback(
        probe,
        # By the file's seed, so that pretrainings of several seeds are probed on the same images.
        ProbeData.read(probe, job.params.seed, f"{job.key}.probe"),
        job.whole,
        encoder,
        batch_size=job.part_size,
        steps=job.batches.steps,
        report=report,
    )
