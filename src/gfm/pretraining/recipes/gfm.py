"""The published recipe: fill in masked blocks, and follow the teacher that sees the whole image (GFM, section 4)."""

from __future__ import annotations

from torch import Tensor

from gfm.models.gfm import StudentTeacher
from gfm.params import GfmPretraining
from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes.recipe import Networks, Recipe, places


class Gfm(Recipe):
    """L = L_MIM + alpha * L_feat."""

    loss_names = ("loss", "mim", "distillation")
    method = (
        "Continual pretraining as in GFM (Towards Geospatial Foundation Models via Continual Pretraining, ICCV 2023): "
        "the student fills in masked blocks of the image, and its pooled features follow those of a frozen teacher "
        "that sees the whole image."
    )

    def __init__(self, settings: GfmPretraining, networks: Networks) -> None:
        self.student, self.masking = networks.student, settings.masking
        self.model = StudentTeacher(
            networks.student,
            networks.the_teacher(),
            alpha=settings.alpha,
            seed=networks.seed,
            **places(settings, networks),
        )

    def losses(self, batch: Batch) -> list[Tensor]:
        """Total, reconstruction and distillation."""
        losses = self.model(batch.pictures, batch.the_masks(), batch.features).losses
        return [losses.total, losses.mim, losses.distillation]

    def filled_in(self, batch: Batch) -> Tensor:
        """The decoder's picture."""
        return self.model(batch.pictures, batch.the_masks(), batch.features).reconstruction  # type: ignore[no-any-return]
