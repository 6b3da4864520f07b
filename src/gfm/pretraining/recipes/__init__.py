"""The recipes of continual pretraining: one class a recipe, chosen by its section of the parameters."""

from __future__ import annotations

from gfm.params import (
    DistillPretraining,
    GfmFastPretraining,
    GfmPretraining,
    Pretraining,
    SimmimContinualPretraining,
    SimmimPretraining,
)
from gfm.pretraining.recipes.distill import Distill
from gfm.pretraining.recipes.gfm import Gfm
from gfm.pretraining.recipes.gfm_fast import GfmFast
from gfm.pretraining.recipes.recipe import Networks, Recipe
from gfm.pretraining.recipes.simmim import Simmim

__all__ = ["Networks", "Recipe", "build_recipe"]


def build_recipe(settings: Pretraining, networks: Networks) -> Recipe:
    """The recipe that the parameters ask for."""
    match settings:
        case GfmPretraining():
            return Gfm(settings, networks)
        case SimmimPretraining() | SimmimContinualPretraining():
            return Simmim(settings, networks)
        case DistillPretraining():
            return Distill(settings, networks)
        case GfmFastPretraining():
            return GfmFast(settings, networks)
