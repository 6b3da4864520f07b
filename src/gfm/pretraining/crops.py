"""Random resized crops in uint8 with OpenCV; flips, floats, means and masks belong on the device."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gfm.params import Crop

TRIES = 10  # as torchvision's RandomResizedCrop, before it falls back to the largest centred crop


def random_crop(
    image: NDArray[np.uint8], px: int, crop: Crop, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], bool]:
    """A random part of `image` (H, W, C), resized to (px, px, C), and whether to mirror it (torchvision's rule)."""
    top, left, height, width = _window(image.shape[0], image.shape[1], crop, rng)
    part = image[top : top + height, left : left + width]
    # Linear interpolation skips pixels when it shrinks; the area rule averages them.
    how = cv2.INTER_AREA if height > px and width > px else cv2.INTER_LINEAR
    resized = cv2.resize(part, (px, px), interpolation=how)
    if resized.ndim == 2:  # OpenCV drops a single band's axis
        resized = resized[..., None]
    return np.ascontiguousarray(resized), bool(rng.random() < crop.flip)


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
