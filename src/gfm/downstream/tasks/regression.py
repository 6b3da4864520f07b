"""A measured quantity for every pixel of an image: biomass, height, depth."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gfm.downstream.decoders import PyramidDecoder
from gfm.downstream.tasks.numbers import Errors, NumberTask
from gfm.downstream.tasks.task import Batch, Panel, Picture, Scale, Scores, TaskSpec, date_panels
from gfm.models.encoder import Encoder

SHOWN_STDS = 2.0  # standard deviations of the training targets, each side of their mean, that colours tell apart
STEPS = 64  # colours of a scale
NO_DATA = 255  # white


class Regression(NumberTask):
    """Decoder over the pyramid, one number a pixel; MSE; R2, with RMSE and MAE in the target's unit.

    What the decoder gives is in standard deviations from the mean of the training targets. `reference` is that mean.
    """

    reference = "train-mean"

    def __init__(self, encoder: Encoder, spec: TaskSpec) -> None:
        super().__init__(encoder, spec)
        self.primary = spec.metric or "r2"
        self.decoder = PyramidDecoder(encoder.channels, encoder.strides, 1)

    def scores(self) -> Scores:
        return Errors()

    def refer(self, batch: Batch) -> Tensor:
        return torch.full_like(batch.target, self.spec.number_mean)

    def _logits(self, image: Tensor, present: Tensor | None) -> Tensor:
        size = self.spec.number_px or self.spec.image_px
        found = F.interpolate(
            self.decoder(self.pyramid(image, present)), size=(size, size), mode="bilinear", align_corners=False
        )
        return self.spec.number_mean + self.spec.number_std * found.float()

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        found, truth = logits[0].cpu().numpy(), target[0].cpu().numpy()
        measured = np.isfinite(truth)
        return [
            *date_panels(images, self.spec.dates),
            Panel(_coloured(self._scaled(truth), measured), "truth"),
            Panel(_coloured(self._scaled(found), measured), "prediction"),
            Panel(_signed((found - truth) / (SHOWN_STDS * self.spec.number_std), measured), "error"),
        ]

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1] of what is shown."""
        return (numbers - self.spec.number_mean) / (2 * SHOWN_STDS * self.spec.number_std) + 0.5

    def scales(self) -> list[Scale]:
        reach = SHOWN_STDS * self.spec.number_std
        middle, unit = self.spec.number_mean, self.spec.unit
        shares, signs = np.linspace(0, 1, STEPS)[None], np.linspace(-1, 1, STEPS)[None]
        shown = np.ones((1, STEPS), bool)
        return [
            Scale(("truth", "prediction"), unit, middle - reach, middle + reach, _coloured(shares, shown)),
            Scale(("error",), f"error, {unit}" if unit else "error", -reach, reach, _signed(signs, shown)),
        ]


def _coloured(shares: np.ndarray, measured: np.ndarray) -> Picture:
    """Numbers in [0, 1] as viridis, white where nothing is measured."""
    levels = (np.nan_to_num(shares).clip(0, 1) * 255).round().astype(np.uint8)
    picture = np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB), np.uint8)
    picture[~measured] = NO_DATA
    return picture


def _signed(errors: np.ndarray, measured: np.ndarray) -> Picture:
    """-1 blue, 0 white, 1 red (Okabe and Ito's); white where nothing is measured."""
    blue, red = np.array([0, 114, 178]), np.array([213, 94, 0])
    size = np.where(measured, errors, 0).clip(-1, 1)[..., None]
    colour = np.where(size < 0, blue, red)
    return np.asarray((255 + np.abs(size) * (colour - 255)).round(), np.uint8)
