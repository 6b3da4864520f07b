"""Which blocks of an image the student must fill in (SimMIM, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gfm.errors import GfmError


def block_mask(images: int, *, blocks: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Masks (images, blocks, blocks), bool, True where masked: ceil(ratio * blocks^2) blocks, drawn per image.

    The same generator state gives the same masks on every machine; it must live on the CPU.
    """
    count = blocks * blocks
    order = torch.rand(images, count, generator=generator).argsort(dim=1)
    return (order.argsort(dim=1) < masked_blocks(blocks, ratio)).view(images, blocks, blocks)


def masked_blocks(blocks: int, ratio: float) -> int:
    """How many of blocks^2 blocks are masked: 22 of 36 at 0.6."""
    # 0.28 * 25 is 7.000000000000001 in floating point, which is 7 and not 8 blocks.
    return math.ceil(round(ratio * blocks * blocks, 9))


def spread(mask: Tensor, cells: tuple[int, int]) -> Tensor:
    """A block mask (B, h, w) repeated onto a finer grid of `cells` (H, W), each a multiple of h and w."""
    height, width = mask.shape[-2:]
    if cells[0] % height or cells[1] % width:
        raise GfmError(
            f"masking.unit: {height} x {width} blocks do not fit the network's {cells[0]} x {cells[1]} patches; "
            "choose an architecture whose patch side divides it"
        )
    return mask.repeat_interleave(cells[0] // height, dim=-2).repeat_interleave(cells[1] // width, dim=-1)
