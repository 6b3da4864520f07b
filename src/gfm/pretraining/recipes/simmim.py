"""Masked image modelling alone, from random weights or from the teacher's (SimMIM)."""

from __future__ import annotations

from torch import Tensor

from gfm.models.simmim import MaskedImageModel
from gfm.params import SimmimContinualPretraining, SimmimPretraining
from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes.recipe import Networks, Recipe


class Simmim(Recipe):
    """L = L_MIM."""

    loss_names = ("loss",)
    method = (
        "Masked image modelling as in SimMIM (CVPR 2022): the student fills in masked blocks of the image. No teacher "
        "is followed."
    )

    def __init__(self, settings: SimmimPretraining | SimmimContinualPretraining, networks: Networks) -> None:
        self.student, self.masking = networks.student, settings.masking
        self.model = MaskedImageModel(networks.student, seed=networks.seed)

    def losses(self, batch: Batch) -> list[Tensor]:
        """The reconstruction's."""
        return [self.model(batch.pictures, batch.the_masks()).loss]

    def filled_in(self, batch: Batch) -> Tensor:
        """The decoder's picture."""
        return self.model(batch.pictures, batch.the_masks()).reconstruction  # type: ignore[no-any-return]
