"""SatlasPretrain's backbones: torchvision's Swin v2 (Base, Tiny) and ResNet (50, 152), without pyramid and heads.

Bastani et al. 2023; github.com/allenai/satlaspretrain_models, models/backbones.py. The weights of several images hold
the same backbone, whose features are compared afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.resnet import resnet_size
from gfm.models.families.vit import needed

LANDMARKS = {r"(backbone\.)+(features\.1\.0\.attn\.logit_scale|resnet\.conv1\.weight)": None}
BESIDE = {
    r"intermediates\.|fpn\.|upsample\.": "feature pyramid and upsampling",
    r"heads?\.": "heads of its tasks",
    r"(backbone\.)+(head|resnet\.fc)\.": "classifier",
    r"(backbone\.)+.*\.attn\.(relative_position_index|relative_coords_table)$": "buffer that the network computes",
}
TIMM_NAMES = {(128, (2, 2, 18, 2)): "swinv2_base_window8_256", (96, (2, 2, 6, 2)): "swinv2_tiny_window8_256"}
ANY_SIZE = "swinv2_base_window8_256"
RENAMED = {"mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."}
NORM = "Its final norm was never trained: the published features are those before it."


def read_satlas(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The backbone."""
    kept, left = set_aside(state, BESIDE)
    names = {key: re.sub(r"^(backbone\.)+", "", key) for key in kept}
    if any(name.startswith("resnet.") for name in names.values()):
        becomes = {key: name.removeprefix("resnet.") for key, name in names.items()}
        values = {becomes[key]: value for key, value in kept.items()}
        architecture, bands = resnet_size(values, source)
        return Layout(architecture, {}, bands, None, "", values, becomes, left)
    return _swin(state, kept, names, left, source)


def _swin(
    state: Mapping[str, Tensor], kept: dict[str, Tensor], names: dict[str, str], left: dict[str, str], source: str
) -> Layout:
    values: dict[str, Tensor] = {}
    becomes, converted = {}, {}
    for key, name in names.items():
        parameter = becomes[key] = swin_name(name)
        if not parameter.endswith("attn.qkv.bias"):
            values[parameter] = kept[key]
            continue
        block, third = parameter.removesuffix("qkv.bias"), len(kept[key]) // 3
        # torchvision zeroes the keys' third whenever it computes.
        values[f"{block}q_bias"], values[f"{block}v_bias"] = kept[key][:third], kept[key][2 * third :]
        becomes[key] = f"{block}q_bias and v_bias"
        converted[key] = "without the keys' third, which is zero where it is used"
    own = {name: kept[key] for key, name in names.items()}
    args = _swin_args(own, state, source)
    stem = needed(own, "features.0.0.weight", 4, source)
    return Layout(
        architecture=TIMM_NAMES.get((args["embed_dim"], tuple(args["depths"])), ANY_SIZE),
        args=args,
        bands=stem.shape[1],
        image_px=None,
        size_from="",
        values=values,
        becomes=becomes,
        left=left,
        converted=converted,
        notes=[NORM],
    )


def swin_name(name: str) -> str:
    """timm's name of a parameter of torchvision's Swin v2."""
    found = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if found is None:
        return name
    place, rest = int(found[1]), found[2]
    if place == 0:
        return re.sub(r"^0\.", "patch_embed.proj.", re.sub(r"^2\.", "patch_embed.norm.", rest))
    if place % 2 == 0:  # merging before the next stage, as timm has it
        return f"layers.{place // 2}.downsample.{rest}"
    for old, new in RENAMED.items():
        rest = rest.replace(f".{old}", f".{new}")
    return f"layers.{place // 2}.blocks.{rest}"


def _swin_args(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    stages = sorted({int(found[1]) for name in own if (found := re.match(r"features\.(\d*[13579])\.\d+\.", name))})
    depths = [len({name.split(".")[2] for name in own if name.startswith(f"features.{stage}.")}) for stage in stages]
    heads = [len(needed(own, f"features.{stage}.0.attn.logit_scale", 3, source)) for stage in stages]
    tables = [value for key, value in state.items() if key.endswith("features.1.0.attn.relative_coords_table")]
    if not tables:
        raise WeightsError(f"{source}: lacks features.1.0.attn.relative_coords_table, which shows the window")
    hidden, width = needed(own, "features.1.0.mlp.0.weight", 2, source).shape
    patch_px = needed(own, "features.0.0.weight", 4, source).shape[-1]
    return {
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": (tables[0].shape[1] + 1) // 2,
        **({"patch_size": patch_px} if patch_px != 4 else {}),
        **({} if math.isclose(hidden / width, 4) else {"mlp_ratio": hidden / width}),
    }
