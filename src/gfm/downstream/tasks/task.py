"""The contract of a task's network: an encoder with a head, a loss, scores over a whole split, and a way to be seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfm.models.encoder import Encoder

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What every batch of a task looks like and what its classes mean."""

    name: str
    classes: tuple[str, ...]
    dates: int
    bands: int
    image_px: int  # side of the images in a batch
    encoder_px: int | None = None  # side that the network resizes them to for its encoder; None: it does not
    mask_px: int | None = None  # side of the padded masks; None where the target is no mask
    number_px: int | None = None  # side of the padded targets of numbers; None where the target is none
    number_bands: int = 1
    number_mean: float = 0.0  # of the training targets, which numbers are scaled by
    number_std: float = 1.0
    unit: str = ""  # of the numbers
    loss: str | None = None  # that the user chose; None: the kind's own
    positive: int | None = None  # id of the class that the scores are about; None: all of them
    metric: str | None = None  # that the user chose to judge by; None: the kind's own


class Batch(NamedTuple):
    """Samples of one part, as they come from the loader."""

    image: Tensor  # uint8 (B, dates, bands, image_px, image_px)
    # int64 (B,) class ids; float32 (B, classes) 0 or 1; uint8 (B, mask_px, mask_px) class ids; or
    # float32 (B, number_bands, number_px, number_px), NaN where nothing was measured
    target: Tensor

    def check(self, spec: TaskSpec) -> None:
        """Raise ValueError where the images are not what the task declares."""
        expected = (spec.dates, spec.bands, spec.image_px, spec.image_px)
        if self.image.dtype != torch.uint8 or tuple(self.image.shape[1:]) != expected:
            raise ValueError(
                f"{spec.name}: a batch of images is {self.image.dtype} {tuple(self.image.shape)}, "
                f"declared is uint8 (B, {', '.join(map(str, expected))}) of dates, bands, height, width"
            )


class Scores(ABC):
    """Scores accumulated over a whole split; a mean over batches would depend on how the split is batched."""

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metric name -> score, the primary metric first; of that one, more is better."""


def primary_first(scores: dict[str, float], primary: str) -> dict[str, float]:
    """The same scores, the primary one first."""
    return {primary: scores[primary], **scores}


class Panel(NamedTuple):
    """One picture of a sample with its caption."""

    picture: Picture  # (H, W, 3)
    caption: str
    verdict: bool | None = None  # whether the prediction is right; None where that is no yes or no


class TaskModel(nn.Module, ABC):
    """An encoder adapted to a task.

    The public methods check the batch and bring images to float [0, 1] (B, dates, bands, H, W); a kind of task fills
    in the hooks.
    """

    primary: str  # the metric that chooses the epoch and stands in the results
    reference: str | None = None  # name of what needs no training, if its scores stand beside the model's (see `refer`)

    def __init__(self, encoder: Encoder, spec: TaskSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = spec

    def forward(self, image: Tensor) -> Tensor:
        """Logits for uint8 images (B, dates, bands, H, W)."""
        return self._logits(self.in_unit(image))

    def in_unit(self, image: Tensor) -> Tensor:
        """uint8 images as floats in [0, 1]."""
        return image.to(next(self.parameters()).dtype) / 255

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar."""
        batch.check(self.spec)
        return self._loss(self(batch.image).float(), batch.target)

    def predict(self, batch: Batch) -> Tensor:
        """Float logits of a batch."""
        batch.check(self.spec)
        return self(batch.image).float()  # type: ignore[no-any-return]

    def refer(self, batch: Batch) -> Tensor:
        """What `reference` predicts for a batch, as `predict` gives it."""
        raise NotImplementedError(f"{type(self).__name__} names no reference")

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Name and colour of everything that maps show; empty where nothing is a map."""
        return []

    def panels(self, image: Picture, logits: Tensor, target: Tensor) -> list[Panel]:
        """What to show of one sample: `image` is uint8 (dates, H, W, 3), logits and target are without batch axis."""
        return self._panels(list(image), logits, target)

    @abstractmethod
    def scores(self) -> Scores:
        """Empty scores for one pass over a split."""

    @abstractmethod
    def _logits(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def _loss(self, logits: Tensor, target: Tensor) -> Tensor: ...

    @abstractmethod
    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]: ...
