"""Clay v1 and v1.5: a ViT whose patch embedding is generated from wavelengths, and whose positions from ground metres.

github.com/Clay-foundation/model (claymodel/model.py, factory.py, layers.py, utils.py; in v1 below src/). What it adds
to every token for time and place is zero here, as its own fine-tuning gives it where they are not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gfm.errors import WeightsError
from gfm.models.families.generator import read_generator
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.vit import needed, vit_size

PREFIX = "encoder."
GENERATOR = "patch_embedding."
LANDMARKS = {r"(encoder\.)?patch_embedding\.weight_generator\.weight_tokens": None}
BESIDE = {
    r"decoder\.": "decoder of the reconstruction",
    r"teacher\.": "frozen teacher",
    r"proj\.": "projection to the teacher",
    r"mrl": "projection to the teacher",
}
NAMES = {  # its names inside a layer, which are vit-pytorch's, and timm's
    "0.norm": "norm1",
    "0.to_qkv": "attn.qkv",
    "0.to_out": "attn.proj",
    "1.net.0": "norm2",
    "1.net.1": "mlp.fc1",
    "1.net.3": "mlp.fc2",
}
HEADS = {192: 4, 384: 6, 768: 12, 1024: 16}  # of its sizes, tiny to large; v1 is base, v1.5 large
PUBLISHED_PX = 256
SCALE = 0.02  # of the generated kernel
TEMPERATURE = 10_000
TIME_AND_PLACE = 8  # last numbers of a position
NOTES = [
    "Time and place are not given to it: zero, as in its own fine-tuning.",
    "Its attention has no bias at the end; here it is zero. Its norms add 1e-5, timm's 1e-6.",
]


def read_clay(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The ViT for these wavelengths and metres a pixel; WeightsError without them."""
    if not images.wavelengths_um or images.gsd_m is None:
        raise WeightsError(
            f"{source}: Clay's patch embedding depends on the bands, its positions on the metres a pixel; give their "
            "--bands, --wavelengths (um) and --gsd (m)"
        )
    kept, left = set_aside(state, BESIDE)
    own = {key.removeprefix(PREFIX): value for key, value in kept.items()}
    generator = {key: value.float() for key, value in own.items() if key.startswith(GENERATOR)}
    kernel, bias = generate(
        {key.removeprefix(GENERATOR): value for key, value in generator.items()}, images.wavelengths_um, source
    )
    names = {key: _timm_name(key, source) for key in own if key not in generator}
    values = {names[key]: own[key] for key in names}
    name, args = vit_size(values, kernel, source)
    hidden = needed(values, "blocks.0.mlp.fc1.weight", 2, source).shape[0]
    width, px = kernel.shape[0], kernel.shape[-1]
    if width not in HEADS:
        raise WeightsError(f"{source}: no size of Clay is {width} wide; they are {', '.join(map(str, HEADS))}")
    image_px = images.image_px or PUBLISHED_PX
    made = {
        "patch_embed.proj.weight": kernel,
        "patch_embed.proj.bias": bias,
        "pos_embed": positions(image_px // px, width, images.gsd_m),
        **{f"blocks.{number}.attn.proj.bias": torch.zeros(width) for number in range(args["depth"])},
    }
    told = ", ".join(f"{length:g}" for length in images.wavelengths_um)
    return Layout(
        architecture=name,
        args=args | {"num_heads": HEADS[width], "mlp_ratio": hidden / width, "qkv_bias": False},
        bands=len(images.wavelengths_um),
        image_px=image_px,
        size_from=f"the size asked for, else the published {PUBLISHED_PX} px",
        values=values | made,
        becomes={key: names.get(key.removeprefix(PREFIX), "patch_embed.proj") for key in kept},
        left=left,
        converted={
            key: f"generated the patch embedding for {told} um" for key in kept if key.removeprefix(PREFIX) in generator
        },
        notes=[
            *NOTES,
            f"Positions are those of {image_px} px of {images.gsd_m:g} m: make it at the size it is used at.",
        ],
    )


@torch.no_grad()
def generate(state: Mapping[str, Tensor], wavelengths_um: list[float], source: str) -> tuple[Tensor, Tensor]:
    """Kernel (width, bands, px, px) and bias (width,) for bands of these wavelengths, by the generator's weights."""
    made = read_generator(state, "Clay", "encoder", ("l1", "l2"), source)
    half = made.inner // 2
    omega = 1.0 / TEMPERATURE ** (torch.arange(half) / (half - 1))
    angles = torch.tensor(wavelengths_um)[:, None] * omega
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    waves = waves + F.gelu(made.second(F.gelu(made.first(waves))))
    encoded, bias = made.encode(waves)
    kernel = made.weight(encoded + waves).view(len(waves), made.width, made.px, made.px).transpose(0, 1)
    return (kernel * SCALE).contiguous(), made.bias(bias)


def positions(cells: int, width: int, gsd_m: float) -> Tensor:
    """(1, 1 + cells * cells, width): zero for the class token, else waves of a cell's number times the metres."""
    inner = width - TIME_AND_PLACE
    count = inner // 4
    omega = gsd_m / TEMPERATURE ** (2 * (torch.arange(count) / (count - 1)) / inner)
    rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    x, y = columns.flatten()[:, None] * omega, rows.flatten()[:, None] * omega
    table = torch.zeros(1, 1 + cells * cells, width)
    table[0, 1:, : 4 * count] = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    return table


def _timm_name(key: str, source: str) -> str:
    if key == "cls_token":
        return key
    if found := re.fullmatch(r"transformer\.norm\.(weight|bias)", key):
        return f"norm.{found[1]}"
    found = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    if found is None or found[2] not in NAMES:
        raise WeightsError(f"{source}: {key}: neither a part of Clay's encoder nor known beside it")
    return f"blocks.{found[1]}.{NAMES[found[2]]}.{found[3]}"
