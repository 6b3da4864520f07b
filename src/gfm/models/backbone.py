"""Any timm network as a feature pyramid: built for an image size, with its maps from fine to coarse."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from gfm.errors import WeightsError


def build_backbone(architecture: str, args: Mapping[str, Any], *, image_px: int, bands: int, seed: int) -> nn.Module:
    """A headless timm network with random weights that depend on `seed` alone.

    The global random state is left as it was. WeightsError names the architecture where timm refuses it.
    """
    given = dict(args)
    if takes_img_size(architecture):
        given["img_size"] = image_px
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, in_chans=bands, **given)
    except (RuntimeError, TypeError, ValueError, AssertionError, ArithmeticError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"architecture {architecture} with {given}: timm refuses it: {reason}") from None
    # Convolutions follow their weights' layout; on CPUs MobileNetV2 trained 1.3 to 1.5 times as fast this way.
    return model.to(memory_format=torch.channels_last)


def takes_img_size(architecture: str) -> bool:
    """Whether the architecture is built for one image size (windows, position tables)."""
    known = get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    return bool(known is not None and known.fixed_input_size)


def set_image_px(model: nn.Module, image_px: int, *, window: int | None = None) -> None:
    """Adapt position tables and windows to square images of this side.

    Swin's windows keep their ratio to the image, as in the published fine-tuning (window 6 at 192 px, 8 at 256, 4 at
    128), unless `window` gives their side in cells; networks without positions take any size and are left alone.
    """
    if not hasattr(model, "set_input_size"):
        return
    windows = {} if window is None else {"window_size": window}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="timm.layers.interpolate")  # about timm's own code
            model.set_input_size(img_size=(image_px, image_px), **windows)  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise WeightsError(f"image_px = {image_px}: {type(model).__name__} cannot take it: {error}") from None


@dataclass(frozen=True, slots=True)
class Level:
    """One map of a pyramid."""

    index: int  # of timm's forward_intermediates
    channels: int
    stride: int  # pixels a cell


def pyramid_levels(model: nn.Module) -> list[Level]:
    """The maps of a network's pyramid, fine to coarse: at most four.

    Hierarchical networks give the last map at each stride, without stride 2 where there are five (strides 4, 8, 16,
    32); networks of one stride (plain ViTs) give four evenly spaced maps.
    """
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise WeightsError(
            f"architecture {type(model).__name__}: timm gives no feature maps of it; take another, "
            "for example Swin, ConvNeXt, ResNet or MobileNet"
        )
    info = model.feature_info
    found = [
        Level(index, entry["num_chs"], entry["reduction"])
        for index, entry in enumerate(info if isinstance(info, list) else info.get_dicts())  # type: ignore[operator,union-attr]
    ]
    if len({level.stride for level in found}) == 1:
        count = min(4, len(found))
        return [found[(i + 1) * len(found) // count - 1] for i in range(count)]
    coarsest_last = {level.stride: level for level in found}
    return list(coarsest_last.values())[-4:]


def pyramid(model: nn.Module, levels: list[Level], image: Tensor) -> list[Tensor]:
    """One map (B, Ci, Hi, Wi) for each of `levels`, in their order, of a normalised image (B, C, H, W).

    A level may be asked for twice. The network's last map has its final norm.
    """
    indices = sorted({level.index for level in levels})
    maps = model.forward_intermediates(  # type: ignore[operator]
        image, indices=indices, norm=True, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    found = dict(zip(indices, maps, strict=True))
    return [found[level.index] for level in levels]


def freeze_batch_norm(model: nn.Module) -> None:
    """Put every batch norm in eval mode: its statistics stay, its scale and shift may still learn."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
