"""Samples as tensors: read, padded, resized; held in memory when they fit, else read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats import TaskFormat, read_in_threads
from gfm.downstream.sample import Sample
from gfm.downstream.tasks.task import Batch, TaskSpec

HELD_BYTES = 1 << 30  # all parts of a task together
TURNS = 8  # four quarter turns, each also mirrored


class Chips(Dataset[Batch]):
    """One part of a task, in the order of its samples; an index list gives a whole batch.

    `bands` are the task's bands in the encoder's order.
    """

    def __init__(
        self, data: TaskFormat[Any], samples: Sequence[Sample], bands: Sequence[str], spec: TaskSpec, held: bool
    ) -> None:
        self.data = data
        self.samples = list(samples)
        self.bands = list(bands)
        self.spec = spec
        self.held = held
        self.dated = data.task.dates is not None  # samples differ in how many dates they have
        self._held: Batch | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def hold(self, what: str) -> None:
        """Read everything into memory now, if this part is to be held."""
        if self.held and self._held is None:
            self._held = self._together(read_in_threads(self._read, self.samples, what, "chips"))

    def __getitems__(self, numbers: list[int]) -> Batch:
        if self._held is None:
            return self._together(self._read(self.samples[number]) for number in numbers)
        image, target, present = self._held
        index = torch.as_tensor(numbers)
        return Batch(image[index], target[index], None if present is None else present[index])

    def __getitem__(self, number: int) -> Batch:
        return self.__getitems__([number])

    def target(self, number: int) -> Tensor:
        """The target of one sample."""
        return self._read_target(self.samples[number]) if self._held is None else self._held.target[number]

    def targets(self) -> Tensor:
        """All targets of the part, (N, …)."""
        if self._held is not None:
            return self._held.target
        return torch.stack([self.target(number) for number in range(len(self))])

    def _together(self, chips: Iterable[tuple[Tensor, Tensor]]) -> Batch:
        """Chips of any number of dates as a batch; missing dates are black, and said to be missing."""
        images, targets = zip(*chips, strict=True)
        if not self.dated:
            return Batch(torch.stack(images), torch.stack(targets))
        image = images[0].new_zeros((len(images), self.spec.dates, *images[0].shape[1:]))
        present = torch.zeros((len(images), self.spec.dates), dtype=torch.bool)
        for number, dates in enumerate(images):
            image[number, : len(dates)] = dates
            present[number, : len(dates)] = True
        return Batch(image, torch.stack(targets), present)

    def _read(self, sample: Sample) -> tuple[Tensor, Tensor]:
        return as_seen(self.data.images(sample, self.bands), self.spec), self._read_target(sample)

    def _read_target(self, sample: Sample) -> Tensor:
        classes = self.spec.classes
        if self.spec.mask_px is not None:
            return torch.from_numpy(_padded(self.data.mask(sample), self.spec.mask_px, IGNORED))
        if self.spec.number_px is not None:
            numbers = _padded(self.data.numbers(sample, self.bands), self.spec.number_px, np.nan)
            return torch.from_numpy(np.ascontiguousarray(numbers.transpose(2, 0, 1)))
        if self.data.task.numbers_images:
            return torch.tensor([float(sample.labels[0])])
        ids = [classes.index(label) for label in sample.labels]
        if self.data.task.kind == "classification":
            return torch.tensor(ids[0])
        present = torch.zeros(len(classes))
        present[ids] = 1
        return present


def as_seen(images: Sequence[np.ndarray[Any, np.dtype[np.uint8]]], spec: TaskSpec) -> Tensor:
    """A sample's image (H, W, bands) of each date as a model takes it: uint8 (dates, bands, image_px, image_px)."""
    if spec.encoder_px is not None:
        images = [_continued(image, spec.image_px) for image in images]
    elif side := spec.mask_px or spec.number_px:
        images = [_padded(image, side, 0) for image in images]
    stack = np.stack([_resized(image, spec.image_px) for image in images])
    return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))


class ShuffledPasses(Sampler[list[int]]):
    """`steps` full batches an epoch, drawn from shuffled passes over the part, one after the other.

    A part smaller than the budget is passed over several times an epoch; what a larger one leaves of a pass, or of a
    last smaller batch, comes first in the next epoch. A part smaller than one batch gives batches of its own size.
    """

    def __init__(self, count: int, batch_size: int, steps: int | None, seed: int) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.steps = steps or max(1, count // self.batch_size)
        self._generator = torch.Generator().manual_seed(seed)
        self._waiting: list[int] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            while len(self._waiting) < self.batch_size:
                self._waiting += torch.randperm(self.count, generator=self._generator).tolist()
            batch, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
            yield batch


def train_loader(chips: Chips, *, batch_size: int, steps: int | None, seed: int, workers: int) -> DataLoader[Batch]:
    """Shuffled full batches; an epoch is `steps` of them, or one pass where that is None."""
    sampler = ShuffledPasses(len(chips), batch_size, steps, seed)
    return DataLoader(chips, batch_sampler=sampler, num_workers=0 if chips.held else workers, collate_fn=_as_it_is)


def score_loader(chips: Chips, *, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Every sample once, in order."""
    return DataLoader(chips, batch_size=batch_size, num_workers=0 if chips.held else workers, collate_fn=_as_it_is)


def fits_memory(spec: TaskSpec, count: int) -> bool:
    """Whether `count` samples of a task are small enough to be held."""
    size = spec.dates * spec.bands * spec.image_px**2 + (spec.mask_px or 0) ** 2
    size += 4 * spec.number_bands * (spec.number_px or 0) ** 2
    return count * size <= HELD_BYTES


def turned(batch: Batch, generator: torch.Generator) -> Batch:
    """Every sample mirrored and turned at random, all its dates and its map alike."""
    ways = torch.randint(TURNS, (len(batch.image),), generator=generator).tolist()
    image = torch.stack([_turn(image, way) for image, way in zip(batch.image, ways, strict=True)])
    target = batch.target
    if target.ndim >= 3:
        target = torch.stack([_turn(mask, way) for mask, way in zip(target, ways, strict=True)])
    return batch._replace(image=image, target=target)


def _turn(picture: Tensor, way: int) -> Tensor:
    mirrored = picture.flip(-1) if way >= TURNS // 2 else picture
    return torch.rot90(mirrored, way % 4, dims=(-2, -1))


def _as_it_is(batch: Any) -> Any:
    return batch


def _continued(image: np.ndarray[Any, np.dtype[np.uint8]], side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Padded by its own edge, so that upsampling finds no step there."""
    height, width = image.shape[:2]
    return np.pad(image, [(0, side - height), (0, side - width), (0, 0)], mode="edge")


def _padded(pixels: np.ndarray[Any, np.dtype[Any]], side: int, value: float) -> np.ndarray[Any, np.dtype[Any]]:
    height, width = pixels.shape[:2]
    margins = [(0, side - height), (0, side - width), *([(0, 0)] * (pixels.ndim - 2))]
    return np.pad(pixels, margins, constant_values=value)


def _resized(image: np.ndarray[Any, np.dtype[np.uint8]], side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    method = cv2.INTER_AREA if max(height, width) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), dtype=np.uint8).reshape(side, side, -1)
