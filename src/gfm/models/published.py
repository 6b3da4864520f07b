"""Names of the published GFM, SimMIM and Swin checkpoints, as names of this project's modules and of timm."""

from __future__ import annotations

import re

from gfm.errors import WeightsError

# Buffers that timm computes for itself.
COMPUTED = re.compile(r"\.(relative_position_index|attn_mask)$")
MASK_TOKEN = "student.mask_token"
PARTS = {
    "encoder.": "student.encoder.backbone.",
    "teacher.": "teacher.backbone.",
    "decoder.": "decoder.",
    "projector.": "distillation.projector.",
}


def own_place(published: str) -> str:
    """Where a published parameter or buffer lies in `StudentTeacher`.

    WeightsError for a name that the published code does not have.
    """
    if published == "encoder.mask_token":
        return MASK_TOKEN
    for prefix, own in PARTS.items():
        if published.startswith(prefix):
            return own + _merge_moved(published.removeprefix(prefix), 1)
    raise WeightsError(f"{published}: not a key of a published GFM checkpoint ({', '.join(PARTS)})")


def published_name(own: str) -> str:
    """The published name of a parameter or buffer of `StudentTeacher`: the inverse of `own_place`."""
    if own == MASK_TOKEN:
        return "encoder.mask_token"
    for published, prefix in PARTS.items():
        if own.startswith(prefix):
            return published + _merge_moved(own.removeprefix(prefix), -1)
    raise WeightsError(f"{own}: the published code has no such parameter ({', '.join(PARTS.values())})")


def timm_name(published: str) -> str:
    """timm's name of a published Swin's parameter, both without the network's prefix.

    The published Swin merges patches at the end of a stage, timm's at the start of the next one.
    """
    return _merge_moved(published, 1)


def _merge_moved(name: str, stages: int) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + stages}.downsample.", name)
