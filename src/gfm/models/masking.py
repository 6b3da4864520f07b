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


def visible_units(mask: Tensor, count: int) -> Tensor:
    """Row-major indices (B, count), long and ascending, of the blocks that a mask (B, h, w) leaves visible.

    `count` is what block_mask left in every row. It is given, not counted, so that nothing waits for an accelerator
    and a compiled graph has fixed shapes. Masks on the CPU are checked: GfmError where a row has another count.
    """
    return _where(~mask, count)


def masked_units(mask: Tensor, count: int) -> Tensor:
    """Row-major indices (B, count), long and ascending, of the blocks that a mask (B, h, w) hides; as visible_units."""
    return _where(mask, count)


def _where(chosen: Tensor, count: int) -> Tensor:
    flat = chosen.flatten(1)
    if flat.device.type == "cpu" and not torch.compiler.is_compiling():
        found = sorted(set(flat.sum(dim=1).tolist()))
        if found != [count]:
            raise GfmError(f"masking: rows with {found} units where {count} were expected; draw masks by block_mask")
    # Stable, so the chosen come first and stay in their order.
    return torch.argsort(~flat, dim=1, stable=True)[:, :count]


def unit_pixels(image: Tensor, units: Tensor, unit_px: int) -> Tensor:
    """The pixels (B, K, C, unit_px, unit_px) of the units (B, K) of an image (B, C, H, W), H and W whole units."""
    batch, bands, height, width = image.shape
    columns = width // unit_px
    blocks = image.view(batch, bands, height // unit_px, unit_px, columns, unit_px)
    image_index = torch.arange(batch, device=image.device).unsqueeze(1)
    return blocks[image_index, :, units // columns, :, units % columns]


def paste_units(image: Tensor, units: Tensor, pixels: Tensor) -> Tensor:
    """A copy of an image (B, C, H, W) with `pixels` (B, K, C, unit_px, unit_px) at its units (B, K)."""
    batch, bands, height, width = image.shape
    unit_px = pixels.shape[-1]
    columns = width // unit_px
    blocks = image.reshape(batch, bands, height // unit_px, unit_px, columns, unit_px).clone()
    image_index = torch.arange(batch, device=image.device).unsqueeze(1)
    blocks[image_index, :, units // columns, :, units % columns] = pixels.to(image.dtype)
    return blocks.view(image.shape)
