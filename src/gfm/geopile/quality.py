"""Which images are worth keeping: large enough, measured, not almost empty or under clouds, neither flat nor blurred.

Sums are of whole numbers, and each measure is one division of them: the same bytes on every machine.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np

from gfm.geopile.row import Row
from gfm.imagery.hashing import grey
from gfm.params import Quality

TOO_SMALL = "too small"
NODATA = "nodata"
CLOUDY = "cloudy"
LOW_ENTROPY = "low entropy"
LOW_CONTRAST = "low contrast"
BLURRED = "blurred"

Image = np.ndarray[Any, np.dtype[np.uint8]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_POWERS = np.stack([np.arange(256, dtype=np.int64) ** power for power in range(3)])
_BLOCK_PX = 1 << 18  # that the Laplacian is taken of at once
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # the pixels that the Laplacian's kernel looks at


class Measures(NamedTuple):
    """What the grey levels of an image say, rounded to four decimals; 0 where no pixel can tell."""

    entropy_bits: float  # Shannon entropy of the histogram, 0-8
    contrast: float  # standard deviation, 0-127.5
    sharpness: float  # variance of the Laplacian, 0-1,040,400


def measure(image: Image, nodata: Mask | None) -> Measures:
    """Measure the grey of a uint8 (H, W, C) image where it is not nodata (None: all of it).

    The Laplacian is that of four neighbours, (0 1 0; 1 -4 1; 0 1 0), taken where all five pixels are inside the image
    and valid, so that neither its border nor the edge of nodata counts as sharp. It is of the pixels as they are: it
    grows with contrast and noise and shrinks with compression, so that it compares images of one sensor best.
    """
    levels = grey(image)
    missing = None if nodata is None or not nodata.any() else nodata.view(np.uint8)
    valid = None if missing is None else 1 - missing
    counts = cv2.calcHist([levels], [0], valid, [256], [0, 256]).ravel().astype(np.int64)
    number, total, squares = (_POWERS @ counts).tolist()
    contrast = round(math.sqrt(_variance(number, total, squares)), 4)
    return Measures(_entropy_bits(counts, number), contrast, _sharpness(levels, missing))


def verdict(row: Row, quality: Quality) -> str | None:
    """The reason to drop an image, or None: size is judged first, then nodata, clouds, entropy, contrast, sharpness."""
    if min(row.width, row.height) < quality.min_px:
        return TOO_SMALL
    if row.nodata_share > quality.max_nodata_share:
        return NODATA
    if quality.max_cloud_share is not None and (row.cloud_share or 0.0) > quality.max_cloud_share:
        return CLOUDY
    if row.entropy_bits < quality.min_entropy_bits:
        return LOW_ENTROPY
    if row.contrast < quality.min_contrast:
        return LOW_CONTRAST
    if row.sharpness < quality.min_sharpness:
        return BLURRED
    return None


def _entropy_bits(counts: np.ndarray[Any, Any], number: int) -> float:
    if not number:
        return 0.0
    shares = counts[counts > 0] / number
    return round(float(-(shares * np.log2(shares)).sum()) + 0.0, 4)


def _sharpness(levels: Image, missing: Image | None) -> float:
    height, width = levels.shape
    if min(height, width) < 3:
        return 0.0
    beside = None if missing is None else cv2.dilate(missing, _CROSS)[1:-1, 1:-1]
    number, total, squares = 0, 0, 0
    lines = max(_BLOCK_PX // width, 1)
    for top in range(0, height - 2, lines):
        edges = _laplacian(levels[top : top + lines + 2])
        number += edges.size
        if beside is not None:
            invalid = beside[top : top + lines]
            number -= cv2.countNonZero(invalid)
            edges = np.where(invalid, np.int16(0), edges)
        # Both sums are whole numbers below 2**53; rounding takes back what a root squared again may be off.
        total += round(cv2.sumElems(edges)[0])
        squares += round(cv2.norm(edges, cv2.NORM_L2SQR))
    return round(_variance(number, total, squares), 4)


def _laplacian(levels: Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Of all pixels but the border's, (H - 2, W - 2): two thirds of OpenCV's time, as one line after another."""
    height, width = levels.shape
    line = levels.astype(np.int16).ravel()
    end = len(line) - width
    edges = line[: end - width] + line[2 * width :]
    edges += line[width - 1 : end - 1]
    edges += line[width + 1 : end + 1]
    edges -= line[width:end] << 2
    return edges.reshape(height - 2, width)[:, 1:-1]


def _variance(number: int, total: int, squares: int) -> float:
    """Of `number` whole values with this sum and sum of squares; exact until its one division."""
    return (number * squares - total * total) / number**2 if number else 0.0
