"""Pooled features of whole images, as probes and nearest neighbours look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gfm.models.encoder import Encoder
from gfm.params import Crop
from gfm.pretraining.batch import Batch
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset, FixedBatches, make_loader
from gfm.progress import track

WHOLE = Crop(scale=(1, 1), ratio=(1, 1), flip=0)  # the centred square of an image


def pooled_features(
    encoder: Encoder,
    images: CropDataset,
    *,
    batch_size: int,
    precision: AbstractContextManager[Any] | None = None,
    workers: int = 0,
) -> Tensor:
    """The mean of the last map, float32 (N, C) on the CPU, of `images` in their order, flips left out.

    The encoder computes in eval mode and gets its modes back; nothing else of it changes. `precision` is the context
    to compute in.
    """
    batches = FixedBatches(len(images), batch_size=batch_size, epoch=VALIDATION_EPOCH)
    with precision or nullcontext():
        return torch.cat(list(feature_batches(encoder, images, batches, workers=workers)))


@torch.no_grad()
def feature_batches(
    encoder: Encoder, images: CropDataset, batches: FixedBatches, *, workers: int = 0, what: str | None = None
) -> Iterator[Tensor]:
    """As `pooled_features`, of one batch after the other; `what` names the work where its progress is to be shown."""
    device = next(encoder.parameters()).device
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    loader: Iterable[Batch] = make_loader(images, batches, workers=workers)
    if what is not None:
        loader = track(loader, what, total=len(batches), unit="batches")
    try:
        for batch in loader:
            yield encoder(batch.to(device).pictures)[-1].mean(dim=(2, 3)).float().cpu()
    finally:
        for module, mode in modes.items():
            module.training = mode
