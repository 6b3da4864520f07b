"""What a parameter file says that is allowed and rarely meant: notes of `gfm check`."""

from __future__ import annotations

from gfm.params.pretraining import Schedule
from gfm.params.whole import Params


def remarks(params: Params) -> list[str]:
    """One line each, with the key and what it leads to."""
    unscored = [name for name in params.pretrain if name not in params.models]
    lines = [f"pretrain.{name} is not among models: it is pretrained and never scored" for name in unscored]
    for name, run in params.pretrain.items():
        rates = run.schedule
        share = run.batch_size / rates.reference_batch
        if rates.base_lr == Schedule().base_lr and share < 1:
            lines.append(
                f"pretrain.{name}.schedule.base_lr = {rates.base_lr:g}, the published rate, is for a batch of "
                f"{rates.reference_batch}; at batch_size = {run.batch_size} the highest rate is "
                f"{rates.base_lr * share:.3g}. Short runs want more: configs/field.yaml has 1.6e-2"
            )
        if run.resize_on == "device" and params.device == "cpu":
            lines.append(
                f"pretrain.{name}.resize_on = device takes far longer than the loader on device: cpu; leave it out"
            )
    return lines
