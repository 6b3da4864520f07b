"""Agreement with the published code in what a step of fine-tuning does: layer by layer, rates and weight decay."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from pydantic import ValidationError

from gfm.downstream.adaptation.full import Full
from gfm.downstream.tasks import TaskModel, TaskSpec, build_model
from gfm.errors import GfmError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.parity import Row
from gfm.models.published import published_name
from gfm.models.schedule_file import StoredFinetuning, names_row, number_row
from gfm.params import Finetune

WEIGHT_DECAY = 0.05  # of the published fine-tuning
_SWIN = "swin_tiny_patch4_window7_224"
_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")


def compare_finetuning(path: Path, published: StoredFinetuning) -> list[Row]:
    """Compare full fine-tuning by the published schedule (`paper_compat`) with what the file at `path` stores.

    Its length, batch and layer decay are the file's; rates are those that an optimiser really has at the stored steps.
    GfmError where the file's names are not those of a Swin.
    """
    try:
        recipe = published_recipe(
            paper_compat=True,
            batch_size=published.global_batch,
            epochs=published.epochs,
            layer_decay=published.layer_decay,
        )
    except ValidationError as error:
        raise GfmError(f"{path}: finetune: {error.errors()[0]['msg']}") from None
    model = narrow_classifier(_depths(path, published))
    names = {id(parameter): _published(name) for name, parameter in model.named_parameters()}
    ours = {str(group["name"]): group for group in recipe.groups(model)}
    rows = [names_row("parameter groups", set(ours), [group.name for group in published.groups])]
    for theirs in published.groups:
        own = ours.get(theirs.name)
        if own is None:
            continue
        rows += [
            names_row(f"parameters in {theirs.name}", {names[id(p)] for p in own["params"]}, theirs.params),
            number_row(f"weight decay of {theirs.name}", own["weight_decay"], theirs.weight_decay),
            number_row(f"lr_scale of {theirs.name}", own["lr_scale"], theirs.lr_scale),
        ]
    found = rates_at(recipe, model, published.steps_per_epoch, sorted(map(int, published.lr_at_step)))
    for step, rates in published.lr_at_step.items():
        rows += [
            number_row(f"learning rate of {name} at step {step}", found[int(step)][name], rate)
            for name, rate in rates.items()
            if name in ours
        ]
        rows.append(names_row(f"groups with a rate at step {step}", set(ours), list(rates)))
    return rows


def published_recipe(*, paper_compat: bool, batch_size: int, epochs: int, layer_decay: float) -> Full:
    """Full fine-tuning as published, with or without its layers that rise."""
    full = {"layer_decay": layer_decay, "schedule": {"paper_compat": paper_compat}}
    settings = {"mode": "full", "epochs": epochs, "batch_size": batch_size, "weight_decay": WEIGHT_DECAY, "full": full}
    return Full(Finetune.model_validate(settings))


def narrow_classifier(depths: tuple[int, ...]) -> TaskModel:
    """A narrow Swin under a linear head: names and layers of parameters do not depend on width."""
    args = {"embed_dim": 4, "depths": depths, "num_heads": (1,) * len(depths), "window_size": 1}
    backbone = build_backbone(_SWIN, args, image_px=32, bands=3, seed=0)
    card = EncoderCard(_SWIN, args, 32, ["R", "G", "B"], [0.5] * 3, [0.5] * 3, "live", "random", "CC0")
    return build_model("classification", Encoder(backbone, card, "swin"), TaskSpec("t", ("a", "b"), 1, 3, 32))


def rates_at(recipe: Full, model: TaskModel, steps_per_epoch: int, steps: list[int]) -> dict[int, dict[str, float]]:
    """The learning rates by group that an optimiser has at these steps, in rising order."""
    optimiser = torch.optim.AdamW([dict(group) for group in recipe.groups(model)])
    schedule = recipe.rates()(optimiser, steps_per_epoch, recipe.settings.epochs)
    found = {}
    for step in steps:
        if step:  # the first step is taken with what the scheduler set when it was made
            schedule.step_update(step)
        found[step] = {group["name"]: group["lr"] for group in optimiser.param_groups}
    return found


def _published(own: str) -> str:
    """The published fine-tuning names a classifier's parameters, without a prefix for its trunk."""
    place = own.removeprefix("encoder.")
    return own if place == own else published_name(f"student.encoder.{place}").removeprefix("encoder.")


def _depths(path: Path, published: StoredFinetuning) -> tuple[int, ...]:
    """Blocks of each stage, from the names of the parameters."""
    names = [name for group in published.groups for name in group.params]
    blocks = sorted({(int(found[1]), int(found[2])) for found in map(_BLOCK.match, names) if found})
    depths = tuple(sum(stage == number for stage, _ in blocks) for number in range(4))
    if blocks != [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)] or not all(depths):
        raise GfmError(f"{path}: finetune.groups: names are not those of a Swin of four stages")
    return depths
