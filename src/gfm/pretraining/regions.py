"""Parts of images as they are cut, in one tensor, for the device to resize as the published crops are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 4  # times the side of a crop; a larger part costs more room in a batch than resizing it before
_STEP = 32  # pixels; buffers of equal shapes are used again from batch to batch
_AT_ONCE = 2**25  # numbers of images that are float32 together


def fresh(*shape: int) -> Tensor:
    """Room for bytes: NumPy's, which asks for large pages. Half of the time of filling torch's went into small ones."""
    return torch.from_numpy(np.empty(shape, np.uint8))


class Regions(NamedTuple):
    """Parts of different sizes."""

    pixels: Tensor  # uint8 (B, H, W, C), each part in the upper left corner; what lies beside it is undefined
    sizes: Tensor  # int64 (B, 2), height and width of each part
    px: int  # side of the crops

    @classmethod
    def gather(cls, parts: Sequence[Tensor], px: int) -> Regions:
        """Parts, uint8 (C, h, w), side by side."""
        sizes = torch.tensor([part.shape[1:] for part in parts])
        height, width = (-(-side // _STEP) * _STEP for side in sizes.amax(dim=0).tolist())
        pixels = fresh(len(parts), height, width, len(parts[0]))
        for place, part in zip(pixels.numpy(), parts, strict=True):
            place[: part.shape[1], : part.shape[2]] = part.permute(1, 2, 0).numpy()
        return cls(pixels, sizes, px)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Regions:
        """The same on a device."""
        pixels, sizes = (part.to(device, non_blocking=non_blocking) for part in self[:2])
        return Regions(pixels, sizes, self.px)

    @torch.no_grad()
    def resized(self) -> Tensor:
        """The crops, uint8 (B, C, px, px), on the device that the parts are on: to the byte those of `crops.resize`.

        Of torch it asks for float32 products in float32, which is its default (no TF32).
        """
        count = max(_AT_ONCE // self.pixels[0].numel(), 1)
        some = zip(*(tensor.split(count) for tensor in (self.pixels, *self.sizes.T)), strict=True)
        with torch.autocast(self.pixels.device.type, enabled=False):  # products must be exact
            return torch.cat([_resized(pixels, heights, widths, self.px) for pixels, heights, widths in some])


def _resized(pixels: Tensor, heights: Tensor, widths: Tensor, px: int) -> Tensor:
    """Along the rows, then along the columns, with whole grey levels between."""
    batch, rows, columns, bands = pixels.shape
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    across = _weights(widths, columns, px).mT
    narrow = _whole(planes.view(batch, bands * rows, columns) @ across).view(batch, bands, rows, px)
    down = _weights(heights, rows, px)
    return _whole(down[:, None] @ narrow).to(torch.uint8)


def _whole(levels: Tensor) -> Tensor:
    return levels.add_(0.5).floor_()


def _weights(sizes: Tensor, room: int, px: int) -> Tensor:
    """(B, px, room): how much each pixel along a part's side, of `sizes` (B,), counts for each pixel of the crop.

    A triangle around the centre of the crop's pixel that reaches to the next one, or to the part's next pixel where
    that is farther. Like torch's own for bytes they are whole multiples of a power of two, 16 bits at most, so that
    float32 adds up products with bytes without rounding, in any order.
    """
    side = sizes[:, None, None]
    to, of = torch.arange(px, device=sizes.device)[:, None], torch.arange(room, device=sizes.device)
    apart = ((2 * of + 1) * px - (2 * to + 1) * side).abs()  # in halves of 1 / px of a pixel
    near = (2 * side.clamp(min=px) - apart).clamp(min=0).where(of < side, 0)
    whole = near.sum(dim=2, keepdim=True)
    largest = (near / whole).amax(dim=(1, 2), keepdim=True)
    one = 2 ** ((2**15 - 0.5) / largest).log2().floor().clamp(max=16).long()
    return (2 * near * one + whole).div(2 * whole, rounding_mode="floor") / one
