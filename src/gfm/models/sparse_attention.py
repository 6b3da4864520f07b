"""Swin's window attention among the visible tokens of a masked image: the dense result with masked keys removed.

Two ways to compute the same, chosen by their sizes: all visible tokens of an image at once, or in the windows of the
whole grid, where masked slots are empty. Where tokens lie is worked out once for all blocks of a stage; every tensor
has a fixed shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention
from torch import Tensor

Size = tuple[int, int]


class VisibleAttention(Protocol):
    """Attention for given masks: call it with a layer and the tokens (B, T, C), for the same shape after the layer."""

    def __call__(self, attn: WindowAttention, x: Tensor) -> Tensor: ...


def visible_attention(row: Tensor, column: Tensor, *, grid: Size, window: Size, shift: Size) -> VisibleAttention:
    """Attention of visible tokens at `row` and `column` (B, T), long, of a grid cut in windows shifted by `shift`.

    The cheaper of the two ways. Where windows stick out of the grid, timm pads it with tokens that are seen; only the
    second way has them.
    """
    windows = math.ceil(grid[0] / window[0]) * math.ceil(grid[1] / window[1])
    whole = grid[0] % window[0] == grid[1] % window[1] == 0
    # Moved as timm rolls the map, before it is cut into windows.
    row, column = (row - shift[0]) % grid[0], (column - shift[1]) % grid[1]
    if whole and row.shape[1] ** 2 <= windows * (window[0] * window[1]) ** 2:
        return _Together(_pair_index(row, column, grid, window, shift))
    return _in_windows(row, column, grid, window, shift)


@dataclass(frozen=True, slots=True)
class _Together:
    """All visible tokens of an image attend at once, those of other windows at minus infinity."""

    index: Tensor  # (B, T, T) long: rows of the relative-position table; one more means another window

    def __call__(self, attn: WindowAttention, x: Tensor) -> Tensor:
        images, tokens, _ = x.shape
        q, k, v = attn.qkv(x).view(images, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        table = attn.relative_position_bias_table
        table = torch.cat([table, table.new_full((1, table.shape[1]), -torch.inf)])
        bias = F.embedding(self.index, table).permute(0, 3, 1, 2)
        out = _attend(attn, q, k, v, bias).transpose(1, 2).reshape(images, tokens, -1)
        result: Tensor = attn.proj_drop(attn.proj(out))
        return result


def _pair_index(row: Tensor, column: Tensor, grid: Size, window: Size, shift: Size) -> Tensor:
    place = _window_and_region(row, column, grid, window, shift)
    apart = place[:, :, None] != place[:, None, :]
    index = row[:, :, None] - row[:, None, :] + window[0] - 1
    index = index * (2 * window[1] - 1) + column[:, :, None] - column[:, None, :] + window[1] - 1
    return index.masked_fill(apart, (2 * window[0] - 1) * (2 * window[1] - 1))


@dataclass(frozen=True, slots=True)
class _InWindows:
    """Queries, keys and values of visible tokens are laid into the windows of the whole grid."""

    slots: Tensor  # (B * T,) long: places among B * windows * area
    bias: Tensor  # (B, windows, 1, area, area): 0, or minus infinity for masked keys and other regions
    padding: Tensor | None  # (B * windows * area, 1) bool: slots outside the grid, None where there are none

    def __call__(self, attn: WindowAttention, x: Tensor) -> Tensor:
        images, windows, _, area, _ = self.bias.shape
        qkv = attn.qkv(x).flatten(0, 1)
        grid = qkv.new_zeros(images * windows * area, qkv.shape[1])
        if self.padding is not None and attn.qkv.bias is not None:
            grid = torch.where(self.padding, attn.qkv.bias.to(grid.dtype), grid)  # timm pads with zeros before qkv
        grid = grid.index_copy(0, self.slots, qkv).view(images * windows, area, 3, attn.num_heads, -1)
        q, k, v = grid.permute(2, 0, 3, 1, 4).unbind(0)
        bias = (attn._get_rel_pos_bias() + self.bias).flatten(0, 1)
        out = _attend(attn, q, k, v, bias).transpose(1, 2).reshape(images * windows * area, -1)
        result: Tensor = attn.proj_drop(attn.proj(out.index_select(0, self.slots))).view(x.shape)
        return result


def _in_windows(row: Tensor, column: Tensor, grid: Size, window: Size, shift: Size) -> _InWindows:
    device, images, area = row.device, len(row), window[0] * window[1]
    padded_rows, padded_columns = (math.ceil(side / part) * part for side, part in zip(grid, window, strict=True))
    windows = padded_rows * padded_columns // area

    def slot(row: Tensor, column: Tensor) -> Tensor:
        number = row // window[0] * (padded_columns // window[1]) + column // window[1]
        return number * area + row % window[0] * window[1] + column % window[1]

    all_rows = torch.arange(padded_rows, device=device)[:, None].expand(-1, padded_columns)
    all_columns = torch.arange(padded_columns, device=device).expand(padded_rows, -1)
    in_order = torch.empty(windows * area, dtype=torch.long, device=device)
    in_order = in_order.scatter(0, slot(all_rows, all_columns).flatten(), torch.arange(windows * area, device=device))
    all_rows, all_columns = all_rows.flatten()[in_order], all_columns.flatten()[in_order]

    own = slot(row, column)
    keys = torch.zeros(images, windows * area, dtype=torch.bool, device=device).scatter(1, own, True)
    padding = None
    if (padded_rows, padded_columns) != grid:
        outside = (all_rows >= grid[0]) | (all_columns >= grid[1])
        keys = keys | outside
        padding = outside.repeat(images).unsqueeze(1)
    place = _window_and_region(all_rows, all_columns, (padded_rows, padded_columns), window, shift).view(windows, area)
    seen = keys.view(images, windows, 1, area) & (place[:, :, None] == place[:, None, :])
    # A masked query sees itself, or its row would be empty and softmax not a number; nobody reads it.
    seen = seen | torch.eye(area, dtype=torch.bool, device=device)
    bias = torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf).unsqueeze(2)
    first = torch.arange(images, device=device).unsqueeze(1) * (windows * area)
    return _InWindows((own + first).flatten(), bias, padding)


def _window_and_region(row: Tensor, column: Tensor, grid: Size, window: Size, shift: Size) -> Tensor:
    """A number for each token: those with the same number see each other (Swin, figure 4).

    The last `shift` rows and columns come from the other side of the picture, and are regions of their own.
    """
    place = row // window[0] * grid[1] + column // window[1]
    if not any(shift):
        return place
    region = 2 * (row >= grid[0] - shift[0]).long() + (column >= grid[1] - shift[1]).long()
    return 4 * place + region


def _attend(attn: WindowAttention, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v of (N, heads, T, d), fused where timm would.

    Minus infinity and not timm's -100 for what is unseen: the exponential of -100 is a denormal number, which makes
    CPUs several times slower.
    """
    if attn.fused_attn:
        dropout = attn.attn_drop.p if attn.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)
    scores = (q * attn.scale) @ k.transpose(-2, -1) + bias
    out: Tensor = attn.attn_drop(attn.softmax(scores)) @ v
    return out
