"""A plain ViT of MAE's naming (which is timm's), read from the shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gfm.errors import WeightsError

# Heads are no shape of any weight: those of the published sizes (ViT; DeiT for the small ones).
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
TIMM_NAMES = {
    (192, 12, 16): "vit_tiny_patch16_224",
    (384, 12, 16): "vit_small_patch16_224",
    (768, 12, 16): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1280, 32, 14): "vit_huge_patch14_224",
}
ANY_SIZE = "vit_base_patch16_224"  # timm's name for sizes without a name; the arguments say everything
MASKED_AUTOENCODER = {  # patterns of what MAE trains beside its encoder
    r"mask_token$": "mask token of the pretraining",
    r"decoder_": "decoder of the reconstruction",
    r"head\.": "classifier",
    r"fc_norm\.": "norm of the classifier",
}


def vit_size(state: Mapping[str, Tensor], kernel: Tensor, source: str) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments of a ViT whose keys stand without prefix; `kernel` is its (C, bands, px, px)."""
    width, patch_px = kernel.shape[0], kernel.shape[-1]
    blocks = {int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))}
    depth = max(blocks, default=-1) + 1
    if width not in HEADS:
        known = ", ".join(map(str, HEADS))
        raise WeightsError(f"{source}: a ViT of width {width}, whose number of heads is not known; known are {known}")
    args: dict[str, Any] = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": HEADS[width],
        "patch_size": patch_px,
        # Where only a classifier's norm was kept, the tokens have none.
        **({} if "norm.weight" in state else {"final_norm": False}),
    }
    return TIMM_NAMES.get((width, depth, patch_px), ANY_SIZE), args


def needed(state: Mapping[str, Tensor], key: str, dimensions: int, source: str) -> Tensor:
    """A tensor that the network cannot do without; WeightsError where it is missing or of other dimensions."""
    if key not in state:
        raise WeightsError(f"{source}: lacks {key}; the file is incomplete, or of another family")
    if state[key].ndim != dimensions:
        raise WeightsError(f"{source}: {key} is {tuple(state[key].shape)}, where {dimensions} dimensions are needed")
    return state[key]


def square_grid(positions: int, source: str) -> int:
    """Cells a side of a table of `positions` with one more for the class token."""
    side = math.isqrt(positions - 1)
    if side * side != positions - 1:
        raise WeightsError(f"{source}: pos_embed has {positions} rows, which is no square grid and a class token")
    return side
