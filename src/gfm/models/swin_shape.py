"""The architecture of a Swin transformer (v1), read from the shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gfm.errors import WeightsError

TABLE = "attn.relative_position_bias_table"
# Every Swin has it and no other network does: where it is found, its prefix is the network's.
LANDMARK = f"layers.0.blocks.0.{TABLE}"
TIMM_NAMES: dict[tuple[int, tuple[int, ...]], str] = {  # Swin, section 3.3
    (96, (2, 2, 6, 2)): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2)): "swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2)): "swin_base_patch4_window7_224",
    (192, (2, 2, 18, 2)): "swin_large_patch4_window7_224",
}
ANY_SIZE = "swin_base_patch4_window7_224"  # timm's name for sizes without a name; the arguments say everything


@dataclass(frozen=True, slots=True)
class SwinShape:
    """What the weights of a Swin are for."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int  # cells a side, of the first stage
    patch_px: int
    mlp_ratio: float
    bands: int
    image_px: int
    size_from: str  # what image_px was read from

    @property
    def timm_name(self) -> str:
        """timm's name of the architecture, to which `args` are given."""
        return TIMM_NAMES.get((self.embed_dim, self.depths), ANY_SIZE)

    @property
    def args(self) -> dict[str, Any]:
        """Arguments of timm.create_model that make this network, but for the image size and the bands."""
        return {
            "embed_dim": self.embed_dim,
            "depths": list(self.depths),
            "num_heads": list(self.num_heads),
            "window_size": self.window,
            **({"patch_size": self.patch_px} if self.patch_px != 4 else {}),
            **({"mlp_ratio": self.mlp_ratio} if self.mlp_ratio != 4 else {}),
        }


def read_swin(state: Mapping[str, Tensor], source: str) -> SwinShape:
    """The shape of a Swin whose parameters are named without prefix; WeightsError naming the key that makes no sense.

    The image size is not a shape of any parameter. It follows from the stored masks of the shifted windows, and where
    there are none from the last stage, whose map is one window in every published Swin.
    """
    depths = _depths(state, source)
    tables = [_shape(state, f"layers.{stage}.blocks.0.{TABLE}", 2, source) for stage in range(len(depths))]
    windows = [_window(rows, f"layers.{stage}.blocks.0.{TABLE}", source) for stage, (rows, _) in enumerate(tables)]
    embed_dim, bands, patch_px, patch_width = _shape(state, "patch_embed.proj.weight", 4, source)
    if patch_px != patch_width:
        raise WeightsError(f"{source}: patch_embed.proj.weight: patches of {patch_px} x {patch_width} are not square")
    hidden, width = _shape(state, "layers.0.blocks.0.mlp.fc1.weight", 2, source)
    image_px, size_from = _image_px(state, windows, patch_px, source)
    return SwinShape(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=tuple(heads for _, heads in tables),
        window=windows[0],
        patch_px=patch_px,
        mlp_ratio=hidden / width,
        bands=bands,
        image_px=image_px,
        size_from=size_from,
    )


def _depths(state: Mapping[str, Tensor], source: str) -> tuple[int, ...]:
    found: dict[int, int] = {}
    for key in state:
        if match := re.fullmatch(rf"layers\.(\d+)\.blocks\.(\d+)\.{re.escape(TABLE)}", key):
            stage, block = int(match[1]), int(match[2])
            found[stage] = max(found.get(stage, 0), block + 1)
    missing = [stage for stage in range(max(found) + 1) if stage not in found]
    if missing:
        raise WeightsError(f"{source}: lacks layers.{missing[0]}, but has layers.{max(found)}; the file is incomplete")
    return tuple(found[stage] for stage in range(len(found)))


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int, source: str) -> tuple[int, ...]:
    if key not in state:
        raise WeightsError(f"{source}: lacks {key}; the file is incomplete")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise WeightsError(f"{source}: {key} is {shape}, where a Swin has {dimensions} dimensions")
    return shape


def _window(rows: int, key: str, source: str) -> int:
    """The window of a table: (2 window - 1)^2 rows."""
    side = math.isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise WeightsError(f"{source}: {key} has {rows} rows, which is no table of a square window")
    return (side + 1) // 2


def _image_px(state: Mapping[str, Tensor], windows: list[int], patch_px: int, source: str) -> tuple[int, str]:
    for stage, window in enumerate(windows):
        key = f"layers.{stage}.blocks.1.attn_mask"
        if key in state:
            count = _shape(state, key, 3, source)[0]
            across = math.isqrt(count)
            if across * across != count:
                raise WeightsError(
                    f"{source}: {key} has {count} windows: not a square image; only those can be imported"
                )
            return across * window * patch_px << stage, key
    return windows[-1] * patch_px << (len(windows) - 1), "the window of the last stage, its whole map"
