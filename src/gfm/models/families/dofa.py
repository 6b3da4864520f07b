"""DOFA v1: a ViT whose patch embedding is generated from the wavelengths of the bands, here once, at import.

Xiong et al. 2024 (arXiv 2403.15356); github.com/zhu-xlab/DOFA (wave_dynamic_layer.py, dofa_v1.py) and
github.com/microsoft/torchgeo, torchgeo/models/dofa.py.

The generated values are ordered (bands, px, px, width), as since torchgeo 0.7; weights of before that have the same
keys and shapes and another order, and are known by their digest alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gfm.errors import WeightsError
from gfm.models.families.generator import read_generator
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.vit import MASKED_AUTOENCODER, needed, square_grid, vit_size

GENERATOR = "patch_embed."
LANDMARKS = {r"patch_embed\.weight_generator\.weight_tokens": None}
BESIDE = {r"projector\.": "projector of the distillation"}
SCALE = 0.01  # of what it generates
# The first digits of torchgeo's own files (dofa_base, dofa_large) from before the order changed.
OTHER_ORDER = ("7cc0f413", "fbd47fa9")
PADDING = (
    "Its convolution pads the image by one pixel, so that its patches begin outside; here they begin at the image's "
    "edge: features are those that it gives for the image moved by one pixel."
)


def read_dofa(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The ViT for these wavelengths; WeightsError without them."""
    wavelengths_um = images.wavelengths_um
    if not wavelengths_um:
        raise WeightsError(
            f"{source}: DOFA's patch embedding depends on the bands; give their --bands and --wavelengths (um)"
        )
    kept, left = set_aside(state, {**MASKED_AUTOENCODER, **BESIDE})
    generator = {key: value for key, value in kept.items() if key.startswith(GENERATOR)}
    table = needed(kept, "pos_embed", 3, source)
    kernel, bias = generate(
        {key.removeprefix(GENERATOR): value.float() for key, value in generator.items()}, wavelengths_um, source
    )
    values = {key: value for key, value in kept.items() if key not in generator}
    name, args = vit_size(values, kernel, source)
    told = ", ".join(f"{length:g}" for length in wavelengths_um)
    return Layout(
        architecture=name,
        args=args,
        bands=len(wavelengths_um),
        image_px=square_grid(table.shape[1], source) * kernel.shape[-1],
        size_from="the table of positions",
        values=values | {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias},
        becomes={key: "patch_embed.proj" if key in generator else key for key in kept},
        left=left,
        converted=dict.fromkeys(generator, f"generated the patch embedding for {told} um"),
        notes=[PADDING],
    )


@torch.no_grad()
def generate(state: Mapping[str, Tensor], wavelengths_um: list[float], source: str) -> tuple[Tensor, Tensor]:
    """Kernel (width, bands, px, px) and bias (width,) for bands of these wavelengths, by the generator's weights."""
    made = read_generator(state, "DOFA", "transformer_encoder", ("w1", "w2"), source)
    waves = _waves(made.inner, torch.tensor(wavelengths_um) * 1000)
    waves = waves + F.relu(made.second(F.relu(made.first(waves))))
    encoded, bias = made.encode(waves)
    kernel = made.weight(encoded + waves).view(len(waves), made.px, made.px, made.width).permute(3, 0, 1, 2)
    return (kernel * SCALE).contiguous(), made.bias(bias) * SCALE


def check_order(digest: str, source: str) -> None:
    """WeightsError for files that are known to have the other order."""
    if digest.startswith(OTHER_ORDER):
        raise WeightsError(
            f"{source}: DOFA's weights of before the order of its generated values changed; take those of "
            "torchgeo 0.7 or later (dofa_base_patch16_224-a0275954, dofa_large_patch16_224-0ff904d3)"
        )


def _waves(width: int, nanometres: Tensor) -> Tensor:
    omega = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2.0))
    angles = nanometres.reshape(-1, 1) * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1)
