"""Random resized crops in uint8, as torchvision cuts and PIL resizes them; flips, floats and masks are the device's."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from gfm.params import Crop

TRIES = 10  # as torchvision's RandomResizedCrop, before it falls back to the largest centred crop
_AT_ONCE = 4  # bands that both libraries resize together by their fast paths; OpenCV 5 refuses more


def random_part(image: NDArray[np.uint8], crop: Crop, rng: np.random.Generator) -> tuple[NDArray[np.uint8], bool]:
    """A random part (h, w, C) of `image` (H, W, C), not copied, and whether to mirror it.

    It is drawn by torchvision's rule (RandomResizedCrop).
    """
    top, left, height, width = _window(image.shape[0], image.shape[1], crop, rng)
    return image[top : top + height, left : left + width], bool(rng.random() < crop.flip)


def resize(part: NDArray[np.uint8], crop: Crop, into: Tensor) -> Tensor:
    """Write `part` (h, w, C), resized, to uint8 `into` (C, px, px), and return that."""
    skips = min(part.shape[:2]) >= 2 * into.shape[1]  # two neighbours a side would leave pixels out
    resized = _antialiased if crop.interpolation == "antialiased" or skips else _linear
    for first in range(0, len(into), _AT_ONCE):
        resized(part[..., first : first + _AT_ONCE], into[first : first + _AT_ONCE])
    return into


def enough_px(crop: Crop, px: int) -> int:
    """How long an image's shorter side must be for its smallest crop to have `px` a side."""
    return math.ceil(px / math.sqrt(crop.scale[0] * min(crop.ratio[0], 1 / crop.ratio[1])))


def _antialiased(part: NDArray[np.uint8], into: Tensor) -> None:
    """PIL's bilinear filter, which the published crops have: equal to one grey level."""
    # A batch of one before its axes are turned: only with such strides are the result's pixels left as they lie.
    pixels = torch.from_numpy(part)[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, size=into.shape[1:], mode="bilinear", antialias=True)[0]
    _write(resized.permute(1, 2, 0).numpy(), into)


def _linear(part: NDArray[np.uint8], into: Tensor) -> None:
    _write(cv2.resize(part, into.shape[:0:-1], interpolation=cv2.INTER_LINEAR), into)


def _write(pixels: NDArray[np.uint8], into: Tensor) -> None:
    cv2.split(pixels, list(into.numpy()))


def _window(rows: int, columns: int, crop: Crop, rng: np.random.Generator) -> tuple[int, int, int, int]:
    low, high = (math.log(r) for r in crop.ratio)
    for _ in range(TRIES):
        area = rows * columns * rng.uniform(*crop.scale)
        ratio = math.exp(rng.uniform(low, high))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= columns and 0 < height <= rows:
            top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
            return int(top), int(left), height, width
    width = min(columns, round(rows * crop.ratio[1]))
    height = min(rows, round(columns / crop.ratio[0]))
    return (rows - height) // 2, (columns - width) // 2, height, width
