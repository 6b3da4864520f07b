"""A light decoder from a feature pyramid to a class for every cell of its finest map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn import functional as F

FINEST_STRIDE = 4  # finer maps cost much and know little
GROUPS = 8


class PyramidDecoder(nn.Module):
    """Lateral 1x1 and top-down sums (FPN), then all levels joined at the finest (UPerNet) and mixed.

    forward takes maps (B, Ci, Hi, Wi) from fine to coarse and returns logits (B, classes, H, W), H and W of the finest
    map of stride 4 or more. Group norm makes it independent of the batch size.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__()
        self.levels = [i for i, stride in enumerate(strides) if stride >= FINEST_STRIDE]
        width = min(256, max(48, channels[self.levels[0]] // GROUPS * GROUPS))
        self.lateral = nn.ModuleList(nn.Conv2d(channels[i], width, 1) for i in self.levels)
        self.fuse = nn.Sequential(
            nn.Conv2d(width * len(self.levels), width, 1, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.GELU(),
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        own = [lateral(maps[i]) for lateral, i in zip(self.lateral, self.levels, strict=True)]
        merged = [own[-1]]
        for finer in reversed(own[:-1]):
            merged.insert(0, finer + _resize(merged[0], finer))
        joined = cat([_resize(level, merged[0]) for level in merged], dim=1)
        return self.classify(self.fuse(joined))  # type: ignore[no-any-return]


def _resize(level: Tensor, like: Tensor) -> Tensor:
    if level.shape[2:] == like.shape[2:]:
        return level
    return F.interpolate(level, size=like.shape[2:], mode="bilinear", align_corners=False)
