"""A light decoder over mask units: a few narrow transformer blocks, one token a unit (MAE, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.models.masking import unit_pixels


class UnitDecoder(nn.Module):
    """Predicts the pixels of masked units from the features of visible ones.

    forward(features, visible, masked) takes float features (B, V, C) of visible units and the indices (B, V) and
    (B, M), long, row-major, of visible and masked units, and returns pixels (B, M, bands * unit_px^2), channels first
    in a unit. Where a unit lies is told by fixed 2-D sines and cosines.

    Args:
        channels: C.
        units: rows and columns of units in an image.
        unit_px: side of a unit in pixels.
        width: of the decoder's tokens, a multiple of 4 and of `heads`.
        depth: number of transformer blocks.
    """

    positions: Tensor

    def __init__(
        self, channels: int, *, units: tuple[int, int], unit_px: int, bands: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        if width % 4 or width % heads:
            raise GfmError(f"decoder width {width}: not a multiple of 4 and of its {heads} heads; use {12 * heads}")
        self.embed = nn.Linear(channels, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.to_pixels = nn.Linear(width, bands * unit_px**2)
        self.register_buffer("positions", build_sincos2d_pos_embed(list(units), dim=width), persistent=False)
        self.apply(_draw)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """The pixels of the masked units."""
        # Positions are part of the tokens, so their order is free: no scatter.
        seen = self.embed(features) + self.positions[visible]
        hidden = self.mask_token + self.positions[masked]
        tokens = self.blocks(torch.cat([seen, hidden.to(seen.dtype)], dim=1))
        pixels: Tensor = self.to_pixels(self.norm(tokens[:, visible.shape[1] :]))
        return pixels


def masked_units_l1(predicted: Tensor, target: Tensor, masked: Tensor, unit_px: int) -> Tensor:
    """The mean absolute error over masked pixels (SimMIM, equation 1), the value of `simmim.masked_l1`.

    `predicted` is (B, M, bands * unit_px^2) for the units `masked` (B, M) of `target` (B, bands, H, W).
    """
    return F.l1_loss(predicted.float(), unit_pixels(target, masked, unit_px).flatten(2).float())


def _draw(module: nn.Module) -> None:
    """MAE's initial weights."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
