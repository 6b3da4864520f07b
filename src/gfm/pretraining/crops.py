"""Random resized crops in uint8, as torchvision cuts and PIL resizes them; flips, floats and masks are the device's."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from gfm.params import Crop

TRIES = 10  # as torchvision's RandomResizedCrop, before it falls back to the largest centred crop
_AT_ONCE = 4  # bands that both libraries resize together by their fast paths; OpenCV 5 refuses more


def random_crop(image: NDArray[np.uint8], px: int, crop: Crop, rng: np.random.Generator) -> tuple[Tensor, bool]:
    """A random part of `image` (H, W, C), resized to uint8 (C, px, px), and whether to mirror it.

    The part is drawn by torchvision's rule (RandomResizedCrop).
    """
    top, left, height, width = _window(image.shape[0], image.shape[1], crop, rng)
    part = image[top : top + height, left : left + width]
    resized = _antialiased(part, px) if crop.interpolation == "antialiased" else _linear(part, px)
    return resized, bool(rng.random() < crop.flip)


def _antialiased(part: NDArray[np.uint8], px: int) -> Tensor:
    """PIL's bilinear filter, which the published crops have: equal to one grey level."""
    planes = torch.from_numpy(part).permute(2, 0, 1)[None]
    done = [
        interpolate(some, size=(px, px), mode="bilinear", antialias=True)
        for some in torch.split(planes, _AT_ONCE, dim=1)
    ]
    return (done[0] if len(done) == 1 else torch.cat(done, dim=1))[0].contiguous()


def _linear(part: NDArray[np.uint8], px: int) -> Tensor:
    """Two neighbours a side; the mean of an area where these would skip pixels."""
    how = cv2.INTER_AREA if min(part.shape[:2]) >= 2 * px else cv2.INTER_LINEAR
    resized: NDArray[np.uint8] = np.empty((part.shape[2], px, px), np.uint8)
    for first in range(0, len(resized), _AT_ONCE):
        some: Any = cv2.resize(part[..., first : first + _AT_ONCE], (px, px), interpolation=how)
        cv2.split(some, list(resized[first : first + _AT_ONCE]))
    return torch.from_numpy(resized)


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
