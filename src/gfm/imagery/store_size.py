"""The size at which an image is kept where its shorter side has a ceiling, and the one resizing to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from gfm.imagery.footprint import Transform

Array = np.ndarray[Any, np.dtype[np.uint8]]


def fitted_size(height: int, width: int, px: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side at most `px`, the other in proportion and rounded; None: no ceiling."""
    shorter = min(height, width)
    if px is None or shorter <= px:
        return height, width
    return round(height * px / shorter), round(width * px / shorter)


def fitted(image: Array, px: int | None) -> Array:
    """A uint8 (H, W, C) image at its `fitted_size`, each pixel the mean of the area it covers; itself where it fits."""
    height, width = fitted_size(image.shape[0], image.shape[1], px)
    if (height, width) == image.shape[:2]:
        return image

    def smaller(part: Array) -> Array:
        # Pillow counts in whole numbers: the same bytes on every processor, as of everything that a data stage writes.
        return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BOX), dtype=np.uint8)

    if image.shape[2] == 3:
        return smaller(np.ascontiguousarray(image))
    return np.stack([smaller(np.ascontiguousarray(image[..., band])) for band in range(image.shape[2])], axis=-1)


def coarser(transform: Transform, across: float, down: float) -> Transform:
    """The transform of an image whose pixels are so many times as wide and as high."""
    a, b, c, d, e, f = transform
    return (a * across, b * down, c, d * across, e * down, f)
