"""How much a step computes, and how much this device can: the two halves of the model FLOPs utilisation."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes import Recipe

COUNTED_IMAGES = 2  # enough for batch norm; operations grow linearly with images
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # others multiply in float32
SIDE = {"cuda": 8192}  # of the measured matrices; elsewhere OTHER_SIDE
OTHER_SIDE = 1024
REPEATS = 5


def flops_per_image(
    recipe: Recipe, batch: Batch, precision: AbstractContextManager[Any], *, checkpointed: bool = False
) -> float:
    """Floating-point operations of one image in a training step: forward, frozen teacher included, and backward.

    Counted by torch on the first images of a real batch, run eagerly: matrix products, convolutions and attention, a
    multiplication and an addition as two. Work done twice to save memory (`checkpointed`) counts once. Gradients,
    statistics and random states stay as they were.
    """
    model, backbone = recipe.model, recipe.student.backbone
    few = batch.first(COUNTED_IMAGES).to(next(model.parameters()).device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = few.rows.device
    if checkpointed:
        backbone.set_grad_checkpointing(False)  # type: ignore[operator]
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False) as counter,
        precision,
    ):
        torch.autograd.grad(recipe.losses(few)[0], learned, allow_unused=True)
    if checkpointed:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return float(counter.get_total_flops()) / len(few.rows)


def shapes_only(recipe: Recipe) -> Recipe:
    """A copy of a recipe whose tensors have no values: one process alone counts its operations, without memory."""
    found = copy.deepcopy(recipe)
    found.model.to("meta")
    return found


def matmul_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of one large square matrix product, the best of several, on this device.

    In the type that `precision` (Lightning's name) multiplies in, under torch's present settings (threads, TF32).
    """
    side, dtype = SIDE.get(device.type, OTHER_SIDE), DTYPES.get(precision, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    one, other = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(1 + REPEATS):  # the first one warms up
        _wait(device)
        began = time.perf_counter()
        torch.mm(one, other)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
