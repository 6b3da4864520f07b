"""A small teacher learning from labels: an encoder and one linear layer on its pooled last map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfm.models.encoder import Encoder
from gfm.pretraining.batch import Batch
from gfm.pretraining.step_module import StepModule

LOSSES = ("loss", "accuracy")


class Classifier(nn.Module):
    """An encoder with a linear layer; forward takes (B, C, H, W) in [0, 1] and returns logits (B, classes)."""

    def __init__(self, encoder: Encoder, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(encoder.channels[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Class logits."""
        return self.head(self.encoder(image)[-1].mean(dim=(2, 3)))  # type: ignore[no-any-return]


class SupervisedModule(StepModule):
    """Cross entropy over the classes of the labelled sources; `labels` hold the class of every row."""

    def __init__(
        self, model: Classifier, *, train_labels: Sequence[int], val_labels: Sequence[int], **shared: Any
    ) -> None:
        super().__init__(model, loss_names=LOSSES, **shared)
        self.register_buffer("train_labels", torch.tensor(train_labels), persistent=False)
        self.register_buffer("val_labels", torch.tensor(val_labels, dtype=torch.long), persistent=False)

    def _losses(self, batch: Batch, train: bool) -> list[Tensor]:
        labels: Tensor = (self.train_labels if train else self.val_labels)[batch.rows]
        logits = self.model(batch.pictures)
        return [F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()]
