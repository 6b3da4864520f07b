"""Agreement with the published code in what a step of pretraining does: learning rates, groups, weight decay."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from gfm.errors import GfmError
from gfm.models.parity import Row, build_published
from gfm.models.parity_file import Swin
from gfm.models.published import published_name
from gfm.models.schedule_file import StoredPretraining, names_row, number_row
from gfm.params import GfmPretraining
from gfm.pretraining.optimiser import BETAS, EPS, learning_rate, parameter_groups

BLOCK = re.compile(r"^encoder\.layers\.(\d+)\.blocks\.(\d+)\.")


def compare_pretraining(path: Path, published: StoredPretraining) -> list[Row]:
    """Compare the recipe `gfm`, as it is by default, with what the schedule file at `path` stores.

    GfmError where its names are not those of a network.
    """
    here = GfmPretraining(recipe="gfm")
    rate = learning_rate(
        here.schedule,
        batch_size=published.global_batch,
        epochs=published.epochs,
        steps_per_epoch=published.steps_per_epoch,
    )
    rows = [
        number_row(f"learning rate at step {step}", rate(int(step)), expected)
        for step, expected in published.lr_at_step.items()
    ]
    model = _model(path, published)
    names = {id(parameter): published_name(name) for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, here.weight_decay)
    wanted = (("decay", published.decay, published.weight_decay), ("no_decay", published.no_decay, 0.0))
    for group, (name, expected_names, decay) in zip(groups, wanted, strict=True):
        rows.append(names_row(f"parameters in {name}", {names[id(p)] for p in group["params"]}, expected_names))  # type: ignore[attr-defined]
        rows.append(number_row(f"weight decay of {name}", float(group["weight_decay"]), decay))  # type: ignore[arg-type]
    rows += [
        number_row("beta 1", BETAS[0], published.betas[0]),
        number_row("beta 2", BETAS[1], published.betas[1]),
        number_row("eps", EPS, published.eps),
        number_row("gradient clip", here.clip_grad, published.clip_grad),
    ]
    return rows


def _model(path: Path, published: StoredPretraining) -> nn.Module:
    """A narrow student and teacher with the file's blocks: names and axes of parameters do not depend on width."""
    names = published.decay + published.no_decay
    blocks: dict[int, set[int]] = {}
    for found in filter(None, map(BLOCK.match, names)):
        blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    for stage, numbers in blocks.items():
        if numbers != set(range(len(numbers))):
            raise GfmError(f"{path}: pretrain.decay and no_decay skip a block of encoder.layers.{stage}")
    if sorted(blocks) not in (list(range(count)) for count in (2, 3, 4)):
        raise GfmError(f"{path}: pretrain.decay and no_decay name no blocks encoder.layers.S.blocks.B of 2 to 4 stages")
    swin = Swin(
        image_px=32,
        embed_dim=4,
        depths=tuple(len(blocks[stage]) for stage in sorted(blocks)),
        num_heads=(1,) * len(blocks),
        window=1,
        patch_px=4,
        bands=3,
        mlp_ratio=1.0,
        qkv_bias=any(name.endswith(".attn.qkv.bias") for name in names),
    )
    return build_published(swin, swin, alpha=1.0)
