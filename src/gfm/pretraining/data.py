"""Batches of crops from the collection's shards: any step's batch depends on seed and step alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gfm import layout
from gfm.errors import DataError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.models.masking import block_mask
from gfm.params import Crop, Masking
from gfm.pretraining.batch import Batch, Sample, collate
from gfm.pretraining.collection import Rows
from gfm.pretraining.crops import enough_px, random_part, resize
from gfm.pretraining.regions import LARGEST, Regions, fresh

SHARDS = layout.COLLECTION / "shards"
VALIDATION_EPOCH = -1  # validation always sees the same crops


class Features(Protocol):
    """Teacher features of fixed crops (see TeacherCache)."""

    def feature(self, crop: int, row: int) -> Tensor:
        """The feature (Ct,) of one crop of one row."""


class Images(Protocol):
    """Images that are decoded already (see DecodedImages)."""

    px: int | None  # ceiling of their shorter side; None: as stored

    def image(self, row: int) -> NDArray[np.uint8]:
        """The image (H, W, C) of one row."""


class CropDataset(Dataset[Sample]):
    """Crops of the collection's images, addressed by (epoch, row).

    A crop is drawn from (seed, epoch, image id), and so is its mask: the same in any order, worker and process.

    Args:
        masking: which blocks are masked; None: no masks.
        crops: how many different crops an image has; 0: a new one every epoch.
        features: the teacher's features of these crops, where they are cached.
        decoded: the images, where they are cached; None: they are read from `shards`.
        resize_on: where the crops of a batch are resized; a sample by itself is always resized here.
        reduced: decode JPEGs that are much larger than a crop at a half, a quarter or an eighth of their size.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        bands: int,
        px: int,
        crop: Crop,
        seed: int,
        masking: Masking | None = None,
        crops: int = 0,
        features: Features | None = None,
        decoded: Images | None = None,
        resize_on: Literal["loader", "device"] = "loader",
        reduced: bool = False,
        shards: Path = SHARDS,
    ) -> None:
        self.rows, self.bands, self.px, self.crop, self.seed = rows, bands, px, crop, seed
        self.masking, self.crops, self.features = masking, crops, features
        self.decoded, self.resize_on = decoded, resize_on
        self.enough_px = enough_px(crop, px) if reduced else None
        self.reader = ShardReader(shards)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self._sample(key, self._room())

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The samples of a batch; their crops are written where the batch has them, not copied there."""
        if self.resize_on == "device":
            samples = [self._sample(key) for key in keys]
            return collate(samples, Regions.gather([sample.image for sample in samples], self.px))
        images = self._room(len(keys))
        return collate([self._sample(key, image) for key, image in zip(keys, images, strict=True)], images)

    def _sample(self, key: tuple[int, int], into: Tensor | None = None) -> Sample:
        epoch, row = key
        number = epoch % self.crops if self.crops and epoch >= 0 else epoch
        draw = np.random.default_rng(self._draw("", number, row))
        part, flip = random_part(self._image(row), self.crop, draw)
        if into is None and max(part.shape[:2]) > LARGEST * self.px:
            into = self._room()
        return Sample(
            torch.from_numpy(part).permute(2, 0, 1) if into is None else resize(part, self.crop, into),
            row,
            flip,
            self._mask(epoch, row),
            self.features.feature(number, row) if self.features is not None else None,
        )

    def _room(self, *images: int) -> Tensor:
        return fresh(*images, self.bands, self.px, self.px)

    def _mask(self, epoch: int, row: int) -> Tensor | None:
        if self.masking is None:
            return None
        generator = torch.Generator().manual_seed(self._draw("mask/", epoch, row) >> 1)
        blocks = self.px // self.masking.unit
        return block_mask(1, blocks=blocks, ratio=self.masking.ratio, generator=generator)[0]

    def _draw(self, purpose: str, epoch: int, row: int) -> int:
        return xxhash.xxh3_64_intdigest(f"{purpose}{self.seed}/{epoch}/{self.rows.id(row)}".encode())

    def _image(self, row: int) -> NDArray[np.uint8]:
        if self.decoded is not None:
            return self.decoded.image(row)
        name = self.rows.id(row)
        image = decode_image(self.reader.bytes(*self.rows.place(row)), name, self.enough_px)
        if image.shape[2] != self.bands:
            raise DataError(
                f"{name}: {image.shape[2]} bands, but geopile.bands has {self.bands}; run `gfm assemble` again"
            )
        return image


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) for every step of a whole training, epochs included, last incomplete batch dropped.

    One long run of steps instead of epochs: a resumed training sets `first_step` and gets exactly the batches that
    are left. Each process takes its share of a step's batch, in `parts` equal parts, one after the other. `weights`
    (rows,) say how often a row is drawn against others (see `epoch_order`); None: every row once an epoch.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        parts: int = 1,
        weights: np.ndarray | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.epochs, self.weights = epochs, weights
        self.rank, self.processes, self.parts = rank, processes, parts
        self.steps_per_epoch = rows // batch_size
        self.steps = self.steps_per_epoch * epochs
        self.first_step = 0

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, again = np.empty((2, 0), np.int64)
        ordered_epoch = -1
        share = self.batch_size // self.processes
        size = share // self.parts
        for step in range(self.first_step, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered_epoch:
                order, again = epoch_order(self.rows, self.seed, epoch, self.weights)
                ordered_epoch = epoch
            start = position * self.batch_size + self.rank * share
            for part in range(start, start + share, size):
                here = slice(part, part + size)
                # A row that comes again within an epoch shows the crop of an epoch after the last.
                yield [
                    (epoch + self.epochs * int(times), int(row))
                    for row, times in zip(order[here], again[here], strict=True)
                ]


def epoch_order(rows: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one epoch in order, as many as there are, and how often each came before in it.

    By weight w a row comes rows x w / sum(w) times an epoch in the mean, and in each epoch that number rounded down or
    up (systematic sampling: points at equal distances on the weights laid end to end, in random order). Equal weights
    are every row once.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(rows)
    if weights is None or (weights == weights[0]).all():
        return order, np.zeros(rows, np.int64)
    ends = np.cumsum(weights[order])
    points = (np.arange(rows) + draw.random()) * (ends[-1] / rows)
    drawn = order[np.minimum(np.searchsorted(ends, points, side="right"), rows - 1)]  # those of one row side by side
    first = np.flatnonzero(np.r_[True, drawn[1:] != drawn[:-1]])
    again = np.arange(rows) - np.repeat(first, np.diff(np.r_[first, rows]))
    mixed = draw.permutation(rows)
    return drawn[mixed], again[mixed]


class FixedBatches(Sampler[list[tuple[int, int]]]):
    """Every row once, in order, always with the same crops; each process takes every n-th batch.

    `even` gives a process that would have one batch fewer than others the first batch again, for networks that all
    processes must run together; `own` is the number of batches without it.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch_size: int,
        rank: int = 0,
        processes: int = 1,
        epoch: int = VALIDATION_EPOCH,
        even: bool = False,
    ) -> None:
        starts = range(0, rows, batch_size)
        batches = [[(epoch, row) for row in range(start, min(start + batch_size, rows))] for start in starts]
        self.batches = batches[rank::processes]
        self.own = len(self.batches)
        if even and self.own < -(-len(batches) // processes):
            self.batches.append(batches[0])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


class TimedLoader(DataLoader[Batch]):
    """A loader that counts the seconds for which its reader waited for a batch."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.waited_s = 0.0

    def __iter__(self) -> Any:
        """The batches."""
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def _as_it_is(batch: Batch) -> Batch:
    return batch


def make_loader(dataset: CropDataset, batches: Sampler[list[tuple[int, int]]], *, workers: int) -> TimedLoader:
    """A loader of batches."""
    return TimedLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,  # the data set makes whole batches
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
