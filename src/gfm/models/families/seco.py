"""SeCo's ResNet: the query encoder of a MoCo v2, whose modules are numbered as torchvision lists them.

Mañas et al. 2021; github.com/ServiceNow/seasonal-contrast, models/moco2_module.py:
`nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.resnet import resnet_size

LANDMARKS = {r"encoder_q\.4\.0\.conv1\.weight": None}
PREFIX = "encoder_q."
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
BESIDE = {
    r"encoder_k\.": "momentum encoder",
    r"heads_[qk]\.": "projection head of the contrast",
    r"queue(_ptr)?$": "queue of negatives",
    r"non_linear_evaluator\.": "probe beside the training",
}


def read_seco(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The query encoder."""
    kept, left = set_aside(state, BESIDE)
    becomes = {}
    for key in kept:
        found = re.match(rf"{re.escape(PREFIX)}(\d+)\.(.+)", key)
        if found is None or found[1] not in NUMBERED:
            raise WeightsError(f"{source}: {key}: neither a part of SeCo's query encoder nor known beside it")
        becomes[key] = f"{NUMBERED[found[1]]}.{found[2]}"
    values = {becomes[key]: value for key, value in kept.items()}
    name, bands = resnet_size(values, source)
    return Layout(name, {}, bands, None, "", values, becomes, left)
