"""Batches of crops from the collection's shards: any step's batch depends on seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gfm import layout
from gfm.errors import DataError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.params import Crop
from gfm.pretraining.collection import Rows
from gfm.pretraining.crops import random_crop

SHARDS = layout.COLLECTION / "shards"
VALIDATION_EPOCH = -1  # validation always sees the same crops

Sample = tuple[Tensor, int]  # uint8 image (C, px, px), row index


class CropDataset(Dataset[Sample]):
    """Crops of the collection's images, addressed by (epoch, row).

    A crop is drawn from (seed, epoch, image id), so it is the same in any order, worker and process.
    """

    def __init__(self, rows: Rows, *, bands: int, px: int, crop: Crop, seed: int, shards: Path = SHARDS) -> None:
        self.rows, self.bands, self.px, self.crop, self.seed = rows, bands, px, crop, seed
        self.reader = ShardReader(shards)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, row = key
        draw = xxhash.xxh3_64_intdigest(f"{self.seed}/{epoch}/{self.rows.id(row)}".encode())
        part = random_crop(self._image(row), self.px, self.crop, np.random.default_rng(draw))
        return torch.from_numpy(part.transpose(2, 0, 1).copy()), row

    def _image(self, row: int) -> np.ndarray:
        name = self.rows.id(row)
        image = decode_image(self.reader.bytes(*self.rows.place(row)), name)
        if image.shape[2] != self.bands:
            raise DataError(
                f"{name}: {image.shape[2]} bands, but geopile.bands has {self.bands}; run `gfm assemble` again"
            )
        return image


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) for every step of a whole training, epochs included, last incomplete batch dropped.

    One long run of steps instead of epochs: a resumed training sets `first_step` and gets exactly the batches that
    are left. Each process takes its part of the batch.
    """

    def __init__(
        self, rows: int, *, batch_size: int, epochs: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.processes = rank, processes
        self.steps_per_epoch = rows // batch_size
        self.steps = self.steps_per_epoch * epochs
        self.first_step = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: np.ndarray = np.empty(0, np.int64)
        ordered_epoch = -1
        share = self.batch_size // self.processes
        for step in range(self.first_step, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = np.random.default_rng([self.seed, epoch]).permutation(self.rows), epoch
            start = position * self.batch_size + self.rank * share
            yield [(epoch, int(row)) for row in order[start : start + share]]


class FixedBatches(Sampler[list[tuple[int, int]]]):
    """Every row once, in order, always with the same crops; each process takes every n-th batch."""

    def __init__(self, rows: int, *, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        starts = range(0, rows, batch_size)
        self.batches = [
            [(VALIDATION_EPOCH, row) for row in range(start, min(start + batch_size, rows))] for start in starts
        ][rank::processes]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


def make_loader(dataset: CropDataset, batches: Sampler[list[tuple[int, int]]], *, workers: int) -> DataLoader[Sample]:
    """A loader of (uint8 images (B, C, px, px), row indices (B,))."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def _collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in samples]), torch.tensor([row for _, row in samples])
