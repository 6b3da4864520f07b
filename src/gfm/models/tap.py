"""Where the features for distillation are taken from a network (GFM, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.swin_transformer import PatchMerging
from timm.models.swin_transformer_v2 import PatchMerging as PatchMergingV2
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.models.backbone import Level, pyramid_levels


@dataclass(frozen=True, slots=True)
class TapPoint:
    """A tap found in a network: the pyramid map it starts from, and the merging behind it, if asked for.

    timm keeps Swin's patch merging at the start of the next stage: "after stage 3 and merging" is
    `layers[3].downsample(layers[2](x))`.
    """

    level: Level
    channels: int
    merging: str | None  # name of the merging module inside the network

    def pooled(self, model: nn.Module, feature_map: Tensor) -> Tensor:
        """The global average (B, channels) of the tapped features, given the map (B, C, H, W) of `level`."""
        if self.merging is None:
            return feature_map.mean(dim=(2, 3))
        return model.get_submodule(self.merging)(feature_map.permute(0, 2, 3, 1)).mean(dim=(1, 2))  # type: ignore[no-any-return]


def find_tap(model: nn.Module, *, stage: int, merged: bool, key: str) -> TapPoint:
    """The tap after `stage` (1 is the finest map); GfmError naming parameter `key` where the network has none such."""
    levels = pyramid_levels(model)
    if stage > len(levels):
        raise GfmError(f"{key}.stage = {stage}: {type(model).__name__} has {len(levels)} stages; give one of them")
    level = levels[stage - 1]
    if not merged:
        return TapPoint(level, level.channels, None)
    name = f"layers.{stage}.downsample"
    merging = dict(model.named_modules()).get(name)
    if not isinstance(merging, PatchMerging | PatchMergingV2):
        raise GfmError(
            f"{key}.merged = true: {type(model).__name__} has no patch merging after stage {stage}; set it to false"
        )
    return TapPoint(level, merging.out_dim, name)
