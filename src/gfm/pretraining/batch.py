"""What a training step gets: crops as bytes, and what must be the same however the work is divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gfm.pretraining.regions import Regions


class Sample(NamedTuple):
    """One crop of one image."""

    image: Tensor  # uint8 (C, px, px), or (C, h, w) where the device resizes it
    row: int  # of the image in its split
    flip: bool  # mirror it left to right
    mask: Tensor | None  # bool (h, w), True where masked; None: the recipe masks nothing
    feature: Tensor | None  # (Ct,), the teacher's; None: the teacher is asked while training


class Batch(NamedTuple):
    """Crops of a step, or of a part of it. Bytes cross the bus; the device resizes, flips, scales and masks."""

    images: Tensor | Regions  # uint8 (B, C, px, px), or what they are yet to be resized from
    rows: Tensor  # int64 (B,)
    flips: Tensor  # bool (B,)
    masks: Tensor | None  # bool (B, h, w)
    features: Tensor | None  # float16 (B, Ct)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, its crops resized there if they are yet to be."""

        def moved(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device, non_blocking=True)

        images = self.images.to(device, non_blocking=True)
        rows, flips = (part.to(device, non_blocking=True) for part in (self.rows, self.flips))
        there = Batch(images, rows, flips, moved(self.masks), moved(self.features))
        return there._replace(images=there.crops)

    def the_masks(self) -> Tensor:
        """The masks, for a recipe that cannot do without them."""
        if self.masks is None:
            raise ValueError("a batch without masks, for a recipe that masks")
        return self.masks

    def first(self, count: int) -> Batch:
        """The first samples of the batch."""
        masks, features = (None if part is None else part[:count] for part in self[3:])
        return Batch(self.crops[:count], self.rows[:count], self.flips[:count], masks, features)

    @property
    def crops(self) -> Tensor:
        """The images, uint8 (B, C, px, px)."""
        return self.images.resized() if isinstance(self.images, Regions) else self.images

    @property
    def pictures(self) -> Tensor:
        """The images mirrored where they are to be, float32 (B, C, px, px) in [0, 1]."""
        images = self.crops.float() / 255
        return torch.where(self.flips.view(-1, 1, 1, 1), images.flip(-1), images)


def collate(samples: Sequence[Sample], images: Tensor | Regions | None = None) -> Batch:
    """Samples as one batch; `images` are theirs, where they lie together already."""
    masks = [sample.mask for sample in samples if sample.mask is not None]
    features = [sample.feature for sample in samples if sample.feature is not None]
    return Batch(
        torch.stack([sample.image for sample in samples]) if images is None else images,
        torch.tensor([sample.row for sample in samples]),
        torch.tensor([sample.flip for sample in samples]),
        torch.stack(masks) if masks else None,
        torch.stack(features) if features else None,
    )
