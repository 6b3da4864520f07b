"""One feature pyramid for an image of several dates."""

from __future__ import annotations

import torch
from torch import Tensor

from gfm.models.encoder import Encoder


def over_dates(encoder: Encoder, image: Tensor, present: Tensor | None, reduce: str) -> list[Tensor]:
    """The pyramid of (B, dates, bands, H, W) in [0, 1]: each date through the encoder, then mean or max over time.

    `present` is bool (B, dates), at least one of each sample; None: all. Dates that are not present are never encoded,
    so that neither a map nor a batch norm knows of them.
    """
    if image.shape[1] == 1:
        return encoder(image[:, 0])  # type: ignore[no-any-return]
    if present is None:
        present = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
    return [_reduced(level, present, reduce) for level in encoder(image[present])]


def _reduced(level: Tensor, present: Tensor, reduce: str) -> Tensor:
    """(present dates, C, H, W) of all samples -> (B, C, H, W)."""
    empty = -torch.inf if reduce == "max" else 0.0
    dates = level.new_full((*present.shape, *level.shape[1:]), empty)
    dates[present] = level
    if reduce == "max":
        return dates.amax(dim=1)
    return dates.sum(dim=1) / present.sum(dim=1).view(-1, 1, 1, 1).to(level.dtype)
