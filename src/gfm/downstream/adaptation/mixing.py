"""Images and labels mixed within a batch: mixup, cutmix, label smoothing."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup, mixup_target

from gfm.downstream.tasks import Batch
from gfm.params import FullFinetuning

SWITCH = 0.5  # share of batches with cutmix where both are on, as published


def mixed(batch: Batch, settings: FullFinetuning, classes: int) -> Batch:
    """A batch whose images are mixed with those at the other end of it, targets (B, classes) alike.

    Class ids become shares; labels of multi-label tasks are smoothed towards a half. The mixture is drawn from numpy's
    global random state, as timm does it. Images stay uint8, rounded: a 255th is less than any augmentation.
    """
    if not settings.mixes and not settings.label_smoothing:
        return batch
    many = batch.target.ndim == 2
    if not settings.mixes:
        target = mixup_target(batch.target, classes, smoothing=settings.label_smoothing, multi_label=many)
        return batch._replace(target=target)
    mix = Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        switch_prob=SWITCH,
        label_smoothing=settings.label_smoothing,
        num_classes=classes,
        multi_label=many,
    )
    one_date = batch.image[:, 0].float()
    image, target = mix(one_date, batch.target)
    return Batch(image.round().to(torch.uint8).unsqueeze(1), target)
