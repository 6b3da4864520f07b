"""One training of one seed: on which data, with which settings, and where it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Trainer

from gfm.downstream.data import Chips, score_loader, train_loader
from gfm.downstream.module import Finetuning, Group, Learner, Rates
from gfm.downstream.split import Part
from gfm.downstream.tasks import Batch
from gfm.lightning_progress import LightningProgress
from gfm.params import Finetune


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training gave; the test scores belong to what validation chose."""

    epoch: int  # 0: nothing was trained
    val: dict[str, float]
    test: dict[str, float]  # empty where no test part was given
    history: list[dict[str, float]]
    samples: int  # training samples seen
    chosen: dict[str, int] = field(default_factory=dict)  # other settings that validation chose


@dataclass(frozen=True, slots=True)
class Training:
    """Data, settings, seed and device of one training."""

    settings: Finetune
    parts: Mapping[Part, Chips]
    seed: int
    accelerator: str
    what: str  # printed with the progress
    # What a frozen encoder made of each part: filled by the first training that needs it, for all that share it.
    encoded: dict[Part, Any] = field(default_factory=dict)

    def train(
        self,
        learner: Learner,
        parts: Mapping[Part, Any],
        *,
        groups: list[Group],
        rates: Rates,
        augment: Callable[[Batch], Batch],
    ) -> Learned:
        """Train on `parts`, choose the epoch on validation, test once where there is a test part.

        `learner` is left as it was tested.
        """
        own = self.settings
        train = train_loader(
            parts["train"],
            batch_size=own.batch_size,
            steps=own.max_steps_per_epoch,
            seed=self.seed,
            workers=own.workers,
        )
        val = score_loader(parts["val"], batch_size=own.batch_size, workers=own.workers)
        steps = len(train)
        module = Finetuning(
            learner, groups=groups, schedule=lambda optimiser: rates(optimiser, steps, own.epochs), augment=augment
        )
        progress = LightningProgress(self.what, batch_size=own.batch_size, total_steps=steps * own.epochs)
        trainer = self.trainer(callbacks=[progress])
        trainer.fit(module, train, val)
        module.restore_best()
        if "test" in parts:
            test = score_loader(parts["test"], batch_size=own.batch_size, workers=own.workers)
            trainer.test(module, test, verbose=False)
        return Learned(
            epoch=module.best_epoch,
            val=module.best_scores,
            test=module.test_scores,
            history=module.history,
            samples=trainer.global_step * min(own.batch_size, len(parts["train"])),
        )

    def trainer(self, **more: Any) -> Trainer:
        """A Lightning trainer of this device and precision that writes nothing."""
        return Trainer(
            accelerator=self.accelerator,
            devices=1,
            max_epochs=self.settings.epochs,
            precision=self.settings.precision,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            **more,
        )
