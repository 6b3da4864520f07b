"""Count, mean, spread and range of the numbers of a target, gathered raster by raster."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIGITS = 6  # significant ones that are written


@dataclass(frozen=True, slots=True)
class Moments:
    """Of some numbers: `spread` is the sum of their squared distances from the mean."""

    count: int
    mean: float
    spread: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: NDArray[np.float32]) -> Moments:
        """Of an array with at least one number, all finite."""
        exact = numbers.astype(np.float64)
        mean = float(exact.mean())
        return cls(exact.size, mean, float(((exact - mean) ** 2).sum()), float(exact.min()), float(exact.max()))

    @classmethod
    def together(cls, parts: Iterable[Moments]) -> Moments:
        """Of all numbers of at least one part (Chan, Golub and LeVeque: no sum of squares that loses its digits)."""
        first, *others = parts
        whole = first
        for part in others:
            count, apart = whole.count + part.count, part.mean - whole.mean
            whole = cls(
                count,
                whole.mean + apart * part.count / count,
                whole.spread + part.spread + apart**2 * whole.count * part.count / count,
                min(whole.low, part.low),
                max(whole.high, part.high),
            )
        return whole

    def as_dict(self) -> dict[str, float]:
        """pixels, mean, std, min and max, rounded to six digits: the same on every machine."""
        told = {"mean": self.mean, "std": math.sqrt(self.spread / self.count), "min": self.low, "max": self.high}
        return {"pixels": self.count, **{key: float(f"{value:.{DIGITS}g}") for key, value in told.items()}}
