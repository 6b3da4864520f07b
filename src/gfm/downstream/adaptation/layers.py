"""How deep in a network each parameter lies: the order in which layer-wise learning rates fall."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timm.models._manipulate import MATCH_PREV_GROUP, group_with_matcher
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from gfm.errors import GfmError
from gfm.models.published import published_name

HEAD = "a task's head"  # no parameter's name
BACKBONE = "student.encoder.backbone."  # where published_name expects a backbone
# The published Swin merges patches at the end of a stage: the merging is as deep as the block before it.
PUBLISHED_SWIN = {
    "stem": r"^patch_embed|^absolute_pos_embed",
    "blocks": [(r"^layers\.(\d+)\.downsample", MATCH_PREV_GROUP), (r"^layers\.(\d+)\.blocks\.(\d+)", None)],
}


def layer_depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """The layer of each parameter of a headless timm network, by name, and the head's: 0 is the stem, then each block.

    As published (BEiT, Swin), what follows the last block (a final norm) is as deep as the head. GfmError where timm
    does not know the network's order.
    """
    names = [name for name, _ in backbone.named_parameters()]
    if isinstance(backbone, SwinTransformer):
        known = {_published(name): name for name in names}
        matcher: Any = PUBLISHED_SWIN
    else:
        if not hasattr(backbone, "group_matcher"):
            raise GfmError(
                f"{type(backbone).__name__}: timm does not know the order of its layers; "
                "set finetune.full.layer_decay = 1"
            )
        known = {name: name for name in names}
        matcher = _without_final_norm(backbone.group_matcher(coarse=False))  # type: ignore[operator]
    found = group_with_matcher([(name, None) for name in (*known, HEAD)], matcher, reverse=True)
    return {own: found[name] for name, own in known.items()}, found[HEAD]


def _published(name: str) -> str:
    return published_name(BACKBONE + name).removeprefix("encoder.")


def _without_final_norm(matcher: Any) -> Any:
    """timm's rules without the one that puts the final norm into the last block: unmatched, it goes with the head."""
    if not isinstance(matcher, Mapping):
        return matcher
    return {
        key: [rule for rule in rules if not _is_last(*rule)] if isinstance(rules, list | tuple) else rules
        for key, rules in matcher.items()
    }


def _is_last(pattern: str, suffix: tuple[int, ...] | None) -> bool:
    return suffix == MATCH_PREV_GROUP and re.compile(pattern).groups == 0
