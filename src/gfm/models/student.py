"""An encoder that sees an image with holes: masked tokens, or masked pixels for convolutional networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gfm.models.backbone import Level, pyramid
from gfm.models.encoder import Encoder
from gfm.models.masking import spread


class MaskedEncoder(nn.Module):
    """Runs an encoder's network with the masked blocks of its input replaced by one learned token.

    Networks of patches (Swin, ViT): masked patch embeddings, after their norm, become the token (normal, std 0.02;
    SimMIM, section 3.1). Convolutional networks: masked pixels of the normalised input become the token, a learned
    colour that starts at zero, the mean colour.

    forward(image, mask, levels) takes a normalised image (B, C, H, W) and a bool block mask (B, h, w), True where
    masked, and returns the maps (B, Ci, Hi, Wi) of `levels`.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.of_patches = hasattr(encoder.backbone, "patch_embed")
        width = int(encoder.backbone.embed_dim) if self.of_patches else len(encoder.bands)  # type: ignore[arg-type]
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self._mask: Tensor | None = None
        if self.of_patches:
            nn.init.normal_(self.mask_token, std=0.02)
            # Once, and not in every forward pass: torch.compile keeps one graph with hooks that are always there.
            encoder.backbone.patch_embed.register_forward_hook(self._hide)  # type: ignore[union-attr]

    def forward(self, image: Tensor, mask: Tensor, levels: list[Level]) -> list[Tensor]:
        """The maps of `levels` of the masked image."""
        backbone = self.encoder.backbone
        if not self.of_patches:
            hidden = spread(mask, (image.shape[2], image.shape[3])).unsqueeze(1)
            return pyramid(backbone, levels, torch.where(hidden, self.mask_token.view(1, -1, 1, 1), image))
        self._mask = mask
        maps = pyramid(backbone, levels, image)
        self._mask = None
        return maps

    def _hide(self, module: Any, inputs: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
        if self._mask is None:  # the encoder by itself
            return tokens
        rows, columns = module.grid_size
        hidden = spread(self._mask, (int(rows), int(columns)))
        hidden = hidden.unsqueeze(-1) if tokens.ndim == 4 else hidden.flatten(1).unsqueeze(-1)  # NHWC or NLC
        return torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
