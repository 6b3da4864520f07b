"""Prithvi-EO 1.0 and 2.0 for one date: MAE's keys with a kernel and positions in time as well.

Jakubik et al. 2023 and Szwarcman et al. 2024; github.com/IBM/terratorch, terratorch/models/backbones/prithvi_mae.py
(PrithviViT and PrithviMAE, with `encoder.` and `decoder.` before the keys of 2.0).

One date of the T that it was trained with:
- the kernel (C, bands, t, px, px) is summed over t, which is what it computes where the image is repeated t times;
  published kernels have t = 1, so that nothing is added up;
- of the positions, those of the first date: they are sines and cosines of time, row and column, so that T and the
  grid are found by computing the table again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.vit import MASKED_AUTOENCODER, needed, vit_size

LANDMARKS = {r"(encoder\.)?patch_embed\.proj\.weight": 5}
PREFIX = "encoder."
BESIDE = {
    r"decoder\.": "decoder of the reconstruction",
    r"temporal_embed_enc\.|location_embed_enc\.": "weight of the date's or place's encoding, which no image carries",
}
EPS = "its layer norms add 1e-5 to the variance, those here 1e-6: features differ by about 1e-5 of their size"
TOLERANCE = 5e-3  # half precision's, for values in [-1, 1]


def read_prithvi(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The ViT for one date; WeightsError where the positions are not Prithvi's."""
    names = {key.removeprefix(PREFIX): key for key in state}
    plain, left = set_aside({name: state[key] for name, key in names.items()}, {**MASKED_AUTOENCODER, **BESIDE})
    kernel = needed(plain, "patch_embed.proj.weight", 5, source)
    table = needed(plain, "pos_embed", 3, source)
    dates, side = _grid(table[0], source)
    values = dict(plain)
    values["patch_embed.proj.weight"] = kernel.float().sum(dim=2)
    values["pos_embed"] = table[:, : 1 + side * side]
    name, args = vit_size(plain, kernel, source)
    converted = {
        names["patch_embed.proj.weight"]: "summed over time" if kernel.shape[2] > 1 else "without its axis of time",
        names["pos_embed"]: f"the first of {dates} dates",
    }
    return Layout(
        architecture=name,
        args=args,
        bands=kernel.shape[1],
        image_px=side * kernel.shape[-1],
        size_from=f"its positions: {dates} dates of {side} x {side}",
        values=values,
        becomes={names[name]: name for name in plain},
        left={names[name]: reason for name, reason in left.items()},
        converted=converted,
        notes=[f"Reads one date of the {dates} that it was trained with.", f"{EPS[0].upper()}{EPS[1:]}."],
    )


def _grid(table: Tensor, source: str) -> tuple[int, int]:
    """Dates and cells a side whose computed positions are those of `table` (1 + dates x side x side, width)."""
    cells, width = len(table) - 1, table.shape[1]
    for dates in range(1, cells + 1):
        side = math.isqrt(cells // dates)
        if dates * side * side == cells and width % 16 == 0:
            computed = positions(width, dates, side)
            if float((computed - table[1:].float()).abs().max()) < TOLERANCE:
                return dates, side
    raise WeightsError(
        f"{source}: pos_embed ({cells} positions) is not Prithvi's table of time, row and column for any number of "
        "dates; its weights are of another family, or of images that are not square"
    )


def positions(width: int, dates: int, side: int) -> Tensor:
    """Prithvi's table (dates x side x side, width): 6/16 of the width for the column, 6/16 the row, 4/16 the date."""
    column, row, date = (torch.arange(count, dtype=torch.float64) for count in (side, side, dates))
    across = _waves(width // 16 * 6, column).repeat(dates * side, 1)
    down = _waves(width // 16 * 6, row).repeat_interleave(side, dim=0).repeat(dates, 1)
    over = _waves(width // 16 * 4, date).repeat_interleave(side * side, dim=0)
    return torch.cat([across, down, over], dim=1).float()


def _waves(width: int, at: Tensor) -> Tensor:
    omega = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = at[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1)
