"""What an image would show at a higher resolution, at any factor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio

from gfm.downstream.decoders import PyramidDecoder
from gfm.downstream.tasks.numbers import NumberTask
from gfm.downstream.tasks.task import Batch, Panel, Picture, Scale, Scores, TaskSpec, primary_first
from gfm.errors import DataError
from gfm.models.encoder import Encoder

FEATURES = 32  # channels at the image's resolution
FINE = 16  # channels at the target's: most of the arithmetic is there
HIGHEST_DB = 100.0  # PSNR of an exact copy, whose own would be infinite
SSIM_PX = 11  # side of its window
SHOWN_PX = 160  # side of what is shown, from the middle of a target: a larger piece hides the detail
SHOWN_ERROR = 0.2  # of the range; larger errors look the same
BRIGHT = 0.99  # this share of the truth is darker than white: many a 16-bit image is dark
NO_DATA = 255  # white


class SuperResolution(NumberTask):
    """Bicubic upsampling, and what encoder and decoder add to it; L1; PSNR and SSIM.

    The image comes in its own size (B, 1, bands, image_px, image_px); the encoder sees it at `encoder_px`. The
    decoder's map, resized to the image and joined with its pixels, passes a sub-pixel convolution (ESPCN, arXiv
    1609.05158) of the nearest whole factor, is resized to the target's size exactly and convolved once more.

    The last convolution begins at zero, so that training begins at bicubic upsampling: whatever is learned is detail
    beyond it, a short training cannot lose the colours, and scores above those of `reference` are the encoder's and
    decoder's own. Bicubic is Keys' kernel (a = -0.5), which Pillow has too. What is sharpened are the encoder's bands.
    """

    reference = "bicubic"
    default_loss = "l1"

    def __init__(self, encoder: Encoder, spec: TaskSpec) -> None:
        super().__init__(encoder, spec)
        assert spec.number_px is not None
        self.primary = spec.metric or "psnr"
        self.size = (spec.number_px, spec.number_px)
        self.decoder = PyramidDecoder(encoder.channels, encoder.strides, FEATURES)
        factor = max(1, round(spec.number_px / spec.image_px))
        self.sharpen = nn.Sequential(
            nn.Conv2d(FEATURES + spec.bands, FEATURES, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(FEATURES, FINE * factor**2, 3, padding=1),
            nn.PixelShuffle(factor),
            nn.GELU(),
        )
        self.detail = nn.Conv2d(FINE, spec.bands, 3, padding=1)
        nn.init.zeros_(self.detail.weight)
        nn.init.zeros_(self.detail.bias)  # type: ignore[arg-type]

    def scores(self) -> Scores:
        return Likeness(self.primary)

    def refer(self, batch: Batch) -> Tensor:
        return bicubic(self.in_unit(batch.image)[:, 0], self.size)

    def _logits(self, image: Tensor, present: Tensor | None) -> Tensor:
        low = image[:, 0]
        side = self.spec.encoder_px or self.spec.image_px
        seen = low if side == low.shape[-1] else _bilinear(low, (side, side))
        known = _bilinear(self.decoder(self.encoder(seen)), (low.shape[2], low.shape[3]))
        sharp = _bilinear(self.sharpen(torch.cat([known, low], dim=1)), self.size)
        return bicubic(low, self.size) + self.detail(sharp)  # type: ignore[no-any-return]

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        low = torch.from_numpy(images[0]).permute(2, 0, 1).float() / 255
        upsampled = bicubic(low[None], self.size)[0]
        truth, found, upsampled = (_middle(_as_rgb(each.cpu()), SHOWN_PX) for each in (target, logits, upsampled))
        low = _middle(low, round(SHOWN_PX * self.spec.image_px / self.size[0]))
        measured = truth.isfinite().all(dim=0)
        lights = truth[:, measured].numpy()
        gain = 1 / max(float(np.quantile(lights, BRIGHT)), 1 / 255) if lights.size else 1.0
        error = (found.clamp(0, 1) - truth).abs().mean(dim=0, keepdim=True) / SHOWN_ERROR
        return [
            Panel(_picture(low * gain), "image (middle)"),
            Panel(_picture(upsampled * gain), "bicubic"),
            Panel(_picture(truth * gain), "truth"),
            Panel(_picture(found * gain), "prediction"),
            Panel(_picture(error.expand(3, -1, -1)), "error"),
        ]

    def scales(self) -> list[Scale]:
        greys = np.repeat(np.linspace(0, 255, 64).round().astype(np.uint8)[None, :, None], 3, axis=2)
        return [Scale(("error",), "error of the range", 0.0, SHOWN_ERROR, greys)]


class Likeness(Scores):
    """PSNR (dB, of the mean squared error over all measured pixels of a split) and SSIM, for values in [0, 1].

    Predictions are clipped to that range. SSIM is the mean over the pixels whose whole window is measured; without
    such pixels there is none.
    """

    def __init__(self, primary: str = "psnr") -> None:
        self.primary = primary
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.psnr.set_dtype(torch.float64)
        self.similarity = torch.zeros((), dtype=torch.float64)
        self.windows = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        found, measured = logits.clamp(0, 1), target.isfinite()
        self.psnr.to(logits.device).update(found[measured].double(), target[measured].double())
        for image, truth, known in zip(found, target, measured, strict=True):  # one at a time, for the memory
            blank = torch.zeros_like(truth)
            pair = (torch.where(known, image, blank)[None], torch.where(known, truth, blank)[None])
            _, each = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
            lacking = F.max_pool2d((~known).float(), SSIM_PX, stride=1, padding=SSIM_PX // 2) > 0
            self.similarity += each[0][~lacking].double().sum().cpu()
            self.windows += int((~lacking).sum())

    def compute(self) -> dict[str, float]:
        scores = {"psnr": min(float(self.psnr.compute()), HIGHEST_DB)}
        if self.windows:
            scores["ssim"] = float(self.similarity) / self.windows
        elif self.primary == "ssim":
            raise DataError(f"no {SSIM_PX}x{SSIM_PX} px of the targets are measured without a gap; set metric = psnr")
        return primary_first(scores, self.primary)


def bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) at another size, by Keys' kernel."""
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def _bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)


def _as_rgb(image: Tensor) -> Tensor:
    return image[:3] if len(image) >= 3 else image[[0, 0, 0]]


def _middle(image: Tensor, side: int) -> Tensor:
    """At most `side` pixels from the middle of (C, H, W)."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def _picture(image: Tensor) -> Picture:
    """(3, H, W) in [0, 1] as a picture, white where it is NaN."""
    lacking = image.isnan().any(dim=0).numpy()
    pixels = (image.nan_to_num(0).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    pixels[lacking] = NO_DATA
    return np.ascontiguousarray(pixels)
