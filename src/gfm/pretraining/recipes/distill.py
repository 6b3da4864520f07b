"""Follow the teacher on whole images; nothing is masked (the paper's teacher-only ablation)."""

from __future__ import annotations

from torch import Tensor

from gfm.models.distill import WholeImageDistillation
from gfm.params import DistillPretraining
from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes.recipe import Networks, Recipe, places


class Distill(Recipe):
    """L = alpha * L_feat."""

    loss_names = ("loss",)
    method = "The student's pooled features follow those of a frozen teacher on the same whole images; no masking."

    def __init__(self, settings: DistillPretraining, networks: Networks) -> None:
        self.student, self.masking = networks.student, None
        self.alpha = settings.alpha
        self.model = WholeImageDistillation(
            networks.student,
            networks.the_teacher(),
            seed=networks.seed,
            **places(settings, networks),
        )

    def losses(self, batch: Batch) -> list[Tensor]:
        """The distillation's."""
        return [self.alpha * self.model(batch.pictures, batch.features)]

    def filled_in(self, batch: Batch) -> None:
        """Nothing is filled in."""
