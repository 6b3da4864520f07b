"""A pretraining recipe on Lightning, its frozen parts left out of checkpoints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes import Recipe
from gfm.pretraining.sharding import shard
from gfm.pretraining.step_module import StepModule

TEACHER = "model.teacher."


class RecipeModule(StepModule):
    """Trains a recipe's model."""

    def __init__(self, recipe: Recipe, **shared: Any) -> None:
        super().__init__(recipe.model, loss_names=recipe.loss_names, **shared)
        self.recipe = recipe

    def configure_model(self) -> None:
        """Shard the model where the trainer's strategy is for that."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"], key=self.key)

    def _losses(self, batch: Batch, train: bool) -> list[Tensor]:
        return self.recipe.losses(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the teacher: it never changes, and the checkpoint's key holds the hash of its weights."""
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith(TEACHER)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complete the state with the teacher that was loaded from its folder."""
        super().on_load_checkpoint(checkpoint)
        own = self.state_dict()
        checkpoint["state_dict"].update({key: value for key, value in own.items() if key.startswith(TEACHER)})
