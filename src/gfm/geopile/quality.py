"""Which images are worth keeping: large enough, measured, and not almost empty."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from gfm.imagery.hashing import grey
from gfm.params import Quality

TOO_SMALL = "too small"
NODATA = "nodata"
LOW_ENTROPY = "low entropy"

Image = np.ndarray[Any, np.dtype[np.uint8]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def entropy_bits(image: Image, nodata: Mask) -> float:
    """Shannon entropy, 0-8 bits, of the grey histogram of a uint8 (H, W, C) image where it is not nodata."""
    valid = np.where(nodata, 0, 255).astype(np.uint8)
    counts = cv2.calcHist([grey(image)], [0], valid, [256], [0, 256]).ravel().astype(np.float64)
    total = counts.sum()
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return round(float(-(shares * np.log2(shares)).sum()) + 0.0, 4)


def verdict(width: int, height: int, nodata_share: float, entropy: float, quality: Quality) -> str | None:
    """The reason to drop an image, or None: the size is judged first, then nodata, then entropy."""
    if min(width, height) < quality.min_px:
        return TOO_SMALL
    if nodata_share > quality.max_nodata_share:
        return NODATA
    if entropy < quality.min_entropy_bits:
        return LOW_ENTROPY
    return None
