"""Masked image modelling with a one-layer decoder (SimMIM, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfm.models.backbone import Level
from gfm.models.encoder import Encoder
from gfm.models.masking import spread
from gfm.models.student import MaskedEncoder


@dataclass(frozen=True, slots=True)
class FilledIn:
    """What a student makes of masked images."""

    loss: Tensor  # mean absolute error over masked pixels, in normalised units
    reconstruction: Tensor  # (B, bands, H, W), normalised as the student's input


class MaskedImageModel(nn.Module):
    """A student that fills in masked blocks.

    forward(image, mask) takes a float image (B, C, H, W) in [0, 1] and a bool block mask (B, h, w), True where masked.
    `seed` draws decoder and token.
    """

    def __init__(self, student: Encoder, *, seed: int) -> None:
        super().__init__()
        self.last = student.levels[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.student = MaskedEncoder(student)
            self.decoder = pixel_decoder(self.last, len(student.bands))

    def forward(self, image: Tensor, mask: Tensor) -> FilledIn:
        """Loss and reconstruction of a batch."""
        target = self.student.encoder.normalise(image)
        (encoder_map,) = self.student(target, mask, [self.last])
        reconstruction = self.decoder(encoder_map)
        return FilledIn(masked_l1(reconstruction, target, mask), reconstruction)


def pixel_decoder(last: Level, bands: int) -> nn.Sequential:
    """One linear layer from a map (B, C, H / stride, W / stride) to pixels (B, bands, H, W)."""
    return nn.Sequential(nn.Conv2d(last.channels, last.stride**2 * bands, kernel_size=1), nn.PixelShuffle(last.stride))


def masked_l1(reconstruction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute error over masked pixels (SimMIM, equation 1), the published denominators kept.

    `reconstruction` and `target` are (B, C, H, W), `mask` is a bool block mask (B, h, w).
    """
    hidden = spread(mask, (target.shape[2], target.shape[3])).unsqueeze(1)
    error = F.l1_loss(reconstruction.float(), target.float(), reduction="none") * hidden
    return error.sum() / (hidden.sum() + 1e-5) / target.shape[1]
