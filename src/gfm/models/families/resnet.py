"""A ResNet of torchvision's naming, which is timm's, known by the number of its blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families.vit import needed

NAMES: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def resnet_size(state: Mapping[str, Tensor], source: str) -> tuple[str, int]:
    """timm's name and the number of bands of a ResNet whose keys stand without prefix."""
    blocks = [re.match(r"layer(\d)\.(\d+)\.", key) for key in state]
    depths = tuple(len({found[2] for found in blocks if found and found[1] == str(stage)}) for stage in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    if (depths, bottleneck) not in NAMES:
        raise WeightsError(f"{source}: {' + '.join(map(str, depths))} blocks are those of no ResNet that timm names")
    return NAMES[depths, bottleneck], needed(state, "conv1.weight", 4, source).shape[1]
