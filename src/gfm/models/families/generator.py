"""The small transformer that makes a patch embedding from wavelengths, which DOFA brought in and Clay took over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfm.errors import WeightsError
from gfm.models.families.vit import needed

HEADS = 4


@dataclass(frozen=True, slots=True)
class Generator:
    """Its layers, with their weights; `width` and `px` are those of the patches that it makes."""

    tokens: Tensor
    bias_token: Tensor
    encoder: nn.Module
    weight: nn.Module
    bias: nn.Module
    first: nn.Module
    second: nn.Module
    width: int
    px: int

    @property
    def inner(self) -> int:
        """Numbers that a wavelength is described by."""
        return self.tokens.shape[1]

    def encode(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Wavelengths (bands, inner) among the learned tokens: what becomes of them, and of the token of the bias."""
        encoded = self.encoder(torch.cat([self.tokens, waves, self.bias_token]))
        return encoded[len(self.tokens) : -1], encoded[-1]


def read_generator(
    state: Mapping[str, Tensor], whose: str, encoder: str, layers: tuple[str, str], source: str
) -> Generator:
    """The generator whose keys stand in `state`; `encoder` and `layers` are what `whose` code calls its parts."""
    tokens = needed(state, "weight_generator.weight_tokens", 2, source)
    bias_token = needed(state, "weight_generator.bias_token", 2, source)
    out = needed(state, "weight_generator.fc_weight.weight", 2, source)
    width = len(needed(state, "weight_generator.fc_bias.weight", 2, source))
    inner, px = tokens.shape[1], round((len(out) / width) ** 0.5)
    if px * px * width != len(out) or inner % HEADS:
        raise WeightsError(
            f"{source}: not {whose}'s generator: {len(out)} values for a patch of width {width}, from {inner} numbers"
        )
    layer = nn.TransformerEncoderLayer(inner, HEADS, activation="gelu", dropout=0.0)
    parts = {
        encoder: nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        "fc_weight": nn.Linear(inner, len(out)),
        "fc_bias": nn.Linear(inner, width),
    }
    first, second = nn.Linear(inner, inner), nn.Linear(inner, inner)
    whole = nn.ModuleDict(
        {
            "weight_generator": nn.ModuleDict(parts),
            "fclayer": nn.ModuleDict(dict(zip(layers, (first, second), strict=True))),
        }
    ).eval()
    free = ("weight_generator.weight_tokens", "weight_generator.bias_token")
    try:
        whole.load_state_dict({key: value for key, value in state.items() if key not in free}, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{source}: not {whose}'s generator: {' '.join(str(error).split())[:300]}") from None
    return Generator(tokens, bias_token, parts[encoder], parts["fc_weight"], parts["fc_bias"], first, second, width, px)
