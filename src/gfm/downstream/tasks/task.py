"""The contract of a task's network: an encoder with a head, a loss, scores over a whole split, and a way to be seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfm.downstream.dates import spread
from gfm.downstream.tasks.series import over_dates
from gfm.models.encoder import Encoder

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What every batch of a task looks like and what its classes mean."""

    name: str
    classes: tuple[str, ...]
    dates: int  # that a batch holds
    bands: int
    image_px: int  # side of the images in a batch
    reduce: str = "mean"  # over time, of the features of several dates
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
    # float32 (B, number_bands, number_px, number_px), NaN where nothing was measured; or (B, 1), a number an image
    target: Tensor
    present: Tensor | None = None  # bool (B, dates): which dates a sample has; None: all

    def check(self, spec: TaskSpec) -> None:
        """Raise ValueError where the images are not what the task declares."""
        expected = (spec.dates, spec.bands, spec.image_px, spec.image_px)
        if self.image.dtype != torch.uint8 or tuple(self.image.shape[1:]) != expected:
            raise ValueError(
                f"{spec.name}: a batch of images is {self.image.dtype} {tuple(self.image.shape)}, "
                f"declared is uint8 (B, {', '.join(map(str, expected))}) of dates, bands, height, width"
            )
        if self.present is not None:
            shape = tuple(self.image.shape[:2])
            if self.present.dtype != torch.bool or tuple(self.present.shape) != shape:
                raise ValueError(
                    f"{spec.name}: present is {self.present.dtype} {tuple(self.present.shape)}, must be bool {shape}"
                )
            if not self.present.any(dim=1).all():
                raise ValueError(f"{spec.name}: a sample of a batch has no date")

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        present = None if self.present is None else self.present.to(device)
        return Batch(self.image.to(device), self.target.to(device), present)


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


class Scale(NamedTuple):
    """What the colours of some panels mean, as a bar."""

    panels: tuple[str, ...]  # captions of the panels that it belongs to
    label: str
    low: float
    high: float
    colours: Picture  # (1, N, 3), from low to high


SHOWN_DATES = 3


def date_panels(images: list[Picture], dates: int) -> list[Panel]:
    """The dates of a sample of a task with `dates` of them, at most three; white where this sample has fewer."""
    if dates == 1:
        return [Panel(images[0], "image")]
    count = min(dates, SHOWN_DATES)
    shown = spread(images, count)
    shown += [np.full_like(images[0], 255)] * (count - len(shown))
    captions = [f"date {number}" for number in range(1, count + 1)]
    if dates > SHOWN_DATES:
        captions = ["first date", "middle", "last date"]
    return [Panel(image, caption) for image, caption in zip(shown, captions, strict=True)]


def middle_date(images: list[Picture]) -> Picture:
    """The one image that stands for all dates of a sample."""
    return images[len(images) // 2]


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

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Logits for uint8 images (B, dates, bands, H, W); `present` is bool (B, dates), None: all dates."""
        return self._logits(self.in_unit(image), present)

    def pyramid(self, image: Tensor, present: Tensor | None) -> list[Tensor]:
        """The feature maps of images (B, dates, bands, H, W) in [0, 1], over all dates that are present."""
        return over_dates(self.encoder, image, present, self.spec.reduce)

    def in_unit(self, image: Tensor) -> Tensor:
        """uint8 images as floats in [0, 1]."""
        return image.to(next(self.parameters()).dtype) / 255

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar."""
        batch.check(self.spec)
        return self._loss(self(batch.image, batch.present).float(), batch.target)

    def predict(self, batch: Batch) -> Tensor:
        """Float logits of a batch."""
        batch.check(self.spec)
        return self(batch.image, batch.present).float()  # type: ignore[no-any-return]

    def refer(self, batch: Batch) -> Tensor:
        """What `reference` predicts for a batch, as `predict` gives it."""
        raise NotImplementedError(f"{type(self).__name__} names no reference")

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Name and colour of everything that maps of classes show."""
        return []

    def scales(self) -> list[Scale]:
        """What the colours of maps of numbers mean."""
        return []

    def panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        """What to show of one sample: an image (H, W, 3) of each date that it has, logits and target of this sample."""
        return self._panels(images, logits, target)

    @abstractmethod
    def scores(self) -> Scores:
        """Empty scores for one pass over a split."""

    @abstractmethod
    def _logits(self, image: Tensor, present: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _loss(self, logits: Tensor, target: Tensor) -> Tensor: ...

    @abstractmethod
    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]: ...
