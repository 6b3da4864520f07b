"""The size at which an image is kept where its shorter side has a ceiling, and the one resizing to it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Image = np.ndarray[Any, np.dtype[np.uint8]]

_AT_ONCE = 4  # bands that OpenCV resizes by areas together


def fitted_size(height: int, width: int, px: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side at most `px`, the other in proportion and rounded; None: no ceiling."""
    shorter = min(height, width)
    if px is None or shorter <= px:
        return height, width
    return round(height * px / shorter), round(width * px / shorter)


def fitted(image: Image, px: int | None) -> Image:
    """A uint8 (H, W, C) image at its `fitted_size`, each pixel the mean of the area it covers; itself where it fits."""
    height, width = fitted_size(image.shape[0], image.shape[1], px)
    if (height, width) == image.shape[:2]:
        return image
    smaller = np.empty((height, width, image.shape[2]), np.uint8)
    for first in range(0, image.shape[2], _AT_ONCE):
        part = cv2.resize(image[..., first : first + _AT_ONCE], (width, height), interpolation=cv2.INTER_AREA)
        smaller[..., first : first + _AT_ONCE] = part.reshape(height, width, -1)
    return smaller
