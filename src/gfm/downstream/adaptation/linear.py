"""A linear probe: one linear layer over pooled features of a frozen encoder."""

from __future__ import annotations

from gfm.downstream.adaptation.features import OnFeatures, pooled_features
from gfm.downstream.adaptation.frozen import Frozen
from gfm.downstream.tasks import TaskModel
from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.training import Learned, Training


class Linear(Frozen):
    """Images are not flipped or turned, so that the encoder sees each of them once, whatever the number of epochs.

    Nor does it see them again for another trial of a search, or another seed that does not draw the encoder anew.
    """

    def learn(self, model: TaskModel, training: Training) -> Learned:
        assert isinstance(model, PooledTask)
        parts = pooled_features(model, training)
        return training.train(
            OnFeatures(model), parts, groups=self.groups(model), rates=self.rates(), augment=lambda batch: batch
        )
