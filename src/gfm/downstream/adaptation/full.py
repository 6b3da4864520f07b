"""Full fine-tuning: every weight learns, lower layers slower, with drop-path and mixed images where asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from gfm.downstream.adaptation.adaptation import HEAD, Adaptation, Files
from gfm.downstream.adaptation.groups import parameter_groups
from gfm.downstream.adaptation.mixing import mixed
from gfm.downstream.adaptation.rates import published_base, published_groups, published_rates
from gfm.downstream.module import Group, Rates
from gfm.downstream.tasks import Batch, TaskModel
from gfm.downstream.training import Learned, Training
from gfm.errors import GfmError
from gfm.params import Finetune


class Full(Adaptation):
    """Everything learns and everything is saved: of the encoder's folder only its description is needed again."""

    def __init__(self, settings: Finetune) -> None:
        super().__init__(settings)
        self.drop_path = settings.full.drop_path

    def prepare(self, model: TaskModel) -> None:
        """Nothing to do: a loaded encoder learns."""

    def learn(self, model: TaskModel, training: Training) -> Learned:
        count = min(self.settings.batch_size, len(training.parts["train"]))
        if self.settings.full.mixes and count % 2:
            raise GfmError(
                f"tasks.{model.spec.name}: mixup and cutmix mix images in pairs, but a batch holds all {count} "
                f"training samples; set finetune.batch_size = {count - 1} or leave mixup and cutmix out"
            )
        return super().learn(model, training)

    def groups(self, model: TaskModel) -> list[Group]:
        own, schedule = self.settings, self.settings.full.schedule
        head, encoder = own.lr, own.encoder_lr
        if schedule is not None:
            head = encoder = published_base(schedule, own.batch_size)
        groups = parameter_groups(
            model,
            head_lr=head,
            encoder_lr=encoder,
            weight_decay=own.weight_decay,
            layer_decay=own.full.layer_decay,
        )
        return groups if schedule is None else published_groups(groups, head, paper_compat=schedule.paper_compat)

    def rates(self) -> Rates:
        schedule = self.settings.full.schedule
        return super().rates() if schedule is None else published_rates(schedule, self.settings.batch_size)

    def augment(self, batch: Batch, model: TaskModel, generator: torch.Generator) -> Batch:
        """Flipped and turned; then mixed with each other and labels smoothed, where asked for."""
        return mixed(super().augment(batch, model, generator), self.settings.full, len(model.spec.classes))

    def saved(self, model: TaskModel) -> dict[str, dict[str, Tensor]]:
        return {HEAD: model.state_dict()}

    def restore(self, model: TaskModel, files: Files) -> None:
        model.load_state_dict(dict(files[HEAD]))
