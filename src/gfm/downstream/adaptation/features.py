"""Pooled features of a frozen encoder, computed once for every image, and a task's head on them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import Dataset

from gfm.downstream.data import score_loader
from gfm.downstream.split import Part
from gfm.downstream.tasks import Batch, Scores
from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.training import Training

ENCODED_AT_ONCE = 32  # images, whatever batch size is trained with: its last digits must not depend on who was first


class Features(Dataset[Batch]):
    """One part of a task as features: batches hold (B, C) float32 instead of images."""

    held = True

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        self.features = features
        self.targets = targets

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, numbers: list[int]) -> Batch:
        return Batch(self.features[numbers], self.targets[numbers])

    def __getitem__(self, number: int) -> Batch:
        return self.__getitems__([number])


def pooled_features(model: PooledTask, training: Training) -> dict[Part, Features]:
    """The features of all parts, with the device and precision of the training; computed where none has before."""
    known = training.encoded
    for part, chips in training.parts.items():
        if part in known:
            continue
        loader = score_loader(chips, batch_size=ENCODED_AT_ONCE, workers=training.settings.workers)
        # Tensors made in torch's inference mode cannot be trained on.
        batches: Any = training.trainer(inference_mode=False).predict(_Reader(model), loader)
        known[part] = Features(torch.cat([batch.image for batch in batches]), torch.cat([b.target for b in batches]))
    return {part: known[part] for part in training.parts}


class _Reader(LightningModule):  # type: ignore[misc]
    def __init__(self, model: PooledTask) -> None:
        super().__init__()
        self.model = model

    def predict_step(self, batch: Batch, number: int) -> Batch:
        return Batch(self.model.features(batch).cpu(), batch.target.cpu())


class OnFeatures(nn.Module):
    """A pooled task whose batches hold features: its head alone, to be trained and scored."""

    def __init__(self, task: PooledTask) -> None:
        super().__init__()
        self.head = task.head
        self._task = (task,)  # in a tuple: the encoder is no part of this module
        self.spec = task.spec
        self.primary = task.primary

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar."""
        return self._task[0].head_loss(batch.image, batch.target)

    def predict(self, batch: Batch) -> Tensor:
        """Float logits of a batch."""
        return self._task[0].head_logits(batch.image)

    def scores(self) -> Scores:
        """Empty scores for one pass over a split."""
        return self._task[0].scores()
