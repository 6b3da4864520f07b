"""What layouts of several dates a sample share: which dates hold a measurement, and maps of numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.formats.format import Numbers, Pixels
from gfm.downstream.moments import Moments
from gfm.downstream.sample import Cut, Sample
from gfm.imagery.raster import Array, ImageError, nodata_mask


def check_size(date: Array, path: Path, first: Array, first_name: str) -> None:
    """ImageError where a date, at `path`, has not the size of the first one."""
    (height, width), (lines, columns) = first.shape[:2], date.shape[:2]
    if (columns, lines) != (width, height):
        reason = f"is {columns}x{lines} px, the first date {first_name} is {width}x{height}"
        raise ImageError(path, reason, "cut all dates to one grid")


def hidden(dates: Sequence[Array], nodata: float | None) -> NDArray[np.bool_]:
    """(H, W), True where every date is nodata."""
    masks: NDArray[np.bool_] = np.all([nodata_mask(date, nodata) for date in dates], axis=0)
    return masks


def number_cut(sample: Sample, images: list[Pixels], numbers: Numbers, target: Path) -> Cut:
    """A whole sample with what its map of numbers holds; ImageError names `target` where nothing is measured."""
    measured = numbers[np.isfinite(numbers)]
    if not measured.size:
        raise ImageError(target, "holds no measured pixel, all is nodata", "remove it")
    return Cut(sample, images, (), Moments.of(measured))


def check_grid(numbers: Numbers, path: Path, sample: Sample) -> None:
    """ImageError where a map of numbers, at `path`, has not the size of its dates."""
    _, _, width, height = sample.window
    if numbers.shape[:2] != (height, width):
        reason = f"is {numbers.shape[1]}x{numbers.shape[0]} px, its dates are {width}x{height}"
        raise ImageError(path, reason, "give the map of these dates, on their grid")
