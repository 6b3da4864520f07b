"""Names of the published GFM code and of its checkpoints, as names of this project's modules."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gfm.errors import WeightsError

# Buffers that timm computes for itself.
COMPUTED = re.compile(r"\.(relative_position_index|attn_mask)$")
PARTS = {
    "encoder.": "student.encoder.backbone.",
    "teacher.": "teacher.backbone.",
    "decoder.": "decoder.",
    "projector.": "distillation.projector.",
}


def own_name(published: str) -> str | None:
    """The parameter of `StudentTeacher` with a published name; None for buffers that are computed here.

    The published Swin merges patches at the end of a stage, timm's at the start of the next one. WeightsError for a
    name that the published code does not have.
    """
    if COMPUTED.search(published):
        return None
    if published == "encoder.mask_token":
        return "student.mask_token"
    for prefix, own in PARTS.items():
        if published.startswith(prefix):
            rest = published.removeprefix(prefix)
            return own + re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", rest)
    raise WeightsError(f"{published}: not a key of a published GFM checkpoint ({', '.join(PARTS)})")


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A published state dict under this project's names, and the keys that were left out because they are computed."""
    own: dict[str, Tensor] = {}
    dropped = []
    for key, value in state.items():
        name = own_name(key)
        if name is None:
            dropped.append(key)
        else:
            own[name] = value
    return own, dropped
