"""Pooled features of whole images, as probes and nearest neighbours look at them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gfm.models.encoder import Encoder
from gfm.params import Crop
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset, FixedBatches, make_loader

WHOLE = Crop(scale=(1, 1), ratio=(1, 1), flip=0)  # the centred square of an image


@torch.no_grad()
def pooled_features(
    encoder: Encoder, images: CropDataset, *, batch_size: int, precision: AbstractContextManager[Any] | None = None
) -> Tensor:
    """The mean of the last map, float32 (N, C) on the CPU, of `images` in their order, flips left out.

    The encoder computes in eval mode and gets its modes back; nothing else of it changes. `precision` is the context
    to compute in.
    """
    device = next(encoder.parameters()).device
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    found = []
    with precision or nullcontext():
        for batch in make_loader(
            images, FixedBatches(len(images), batch_size=batch_size, epoch=VALIDATION_EPOCH), workers=0
        ):
            found.append(encoder(batch.to(device).pictures)[-1].mean(dim=(2, 3)).float().cpu())
    for module, mode in modes.items():
        module.training = mode
    return torch.cat(found)
