"""Windows over a scene of any size, and what they give blended into one result, in memory that does not grow with it.

The rule: windows overlap by a share of their side and are spread evenly, the last one ends at the scene's edge. Where
several cover a pixel, the result is their mean, weighted by how far the pixel lies from each window's edge: the weight
falls linearly, along both sides, from the middle to (almost) nothing, so that no window begins or ends visibly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm.errors import DataError
from gfm.imagery.geotiff import TILE

PANEL_PX = 8192  # of the result, that are worked on from top to bottom before those to their right
PANEL_BYTES = 1 << 28  # for the sums of a panel

Logits = NDArray[np.float32]


class Block(NamedTuple):
    """A finished part of the result; it begins and ends at whole tiles of a file, or at the result's edge."""

    x: int
    y: int
    logits: Logits  # (channels, height, width); NaN where no window was looked at


# What the windows of one row show, by their left edges and their common upper edge: (left edge, (channels, h, w));
# those that show nothing are left out.
Look = Callable[[Sequence[int], int], Iterable[tuple[int, Logits]]]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over a scene; `factor` is how many pixels the result has for each of the scene's, along a side.

    All lengths are pixels of the scene but for those of the result, which begin with `out`.
    """

    width: int
    height: int
    window: tuple[int, int]  # width and height
    overlap: float  # share of the window
    factor: Fraction = Fraction(1)

    @property
    def columns(self) -> list[int]:
        """Left edges."""
        return _starts(self.width, self.window[0], self.overlap, self.factor.denominator)

    @property
    def rows(self) -> list[int]:
        """Upper edges."""
        return _starts(self.height, self.window[1], self.overlap, self.factor.denominator)

    @property
    def out(self) -> tuple[int, int]:
        """Width and height of the result."""
        return self._scaled(self.width), self._scaled(self.height)

    @property
    def out_window(self) -> tuple[int, int]:
        """Width and height of what a window gives."""
        return self._scaled(self.window[0]), self._scaled(self.window[1])

    def blocks(self, channels: int) -> int:
        """How many blocks `blended` gives."""
        width, height = self.out
        return -(-width // self._panel(channels)) * -(-height // TILE)

    def blended(self, channels: int, look: Look) -> Iterator[Block]:
        """The whole result, each pixel once: from top to bottom, in panels from left to right."""
        width = self.out[0]
        for left in range(0, width, self._panel(channels)):
            yield from self._blended(channels, look, left, min(left + self._panel(channels), width))

    def _blended(self, channels: int, look: Look, left: int, right: int) -> Iterator[Block]:
        wide, high = self.out_window
        columns = [x for x in self.columns if self._scaled(x) < right and self._scaled(x) + wide > left]
        weight = np.outer(falling(high), falling(wide))
        # A tile that is not finished when a row of windows begins, and that row.
        total = np.zeros((channels, TILE + high, right - left), np.float32)
        weights = np.zeros((TILE + high, right - left), np.float32)
        top, rows = 0, self.rows
        for y, below in zip(rows, [*rows[1:], None], strict=True):
            at = self._scaled(y) - top
            for x, logits in look(columns, y):
                start = self._scaled(x)
                inner = slice(max(left - start, 0), min(right - start, wide))
                there = slice(start + inner.start - left, start + inner.stop - left)
                total[:, at : at + high, there] += logits[:, :, inner] * weight[:, inner]
                weights[at : at + high, there] += weight[:, inner]
            end = self.out[1] if below is None else self._scaled(below) // TILE * TILE
            for line in range(top, end, TILE):
                lines = slice(line - top, min(line + TILE, end) - top)
                yield Block(left, line, _mean(total[:, lines], weights[lines]))
            if end > top:
                for sums in (total, weights):
                    kept = sums[..., end - top :, :].copy()
                    sums[:] = 0
                    sums[..., : kept.shape[-2], :] = kept
            top = end

    def _panel(self, channels: int) -> int:
        """Width of a panel of the result, in whole tiles."""
        fitting = PANEL_BYTES // (4 * (channels + 1) * (TILE + self.out_window[1]))
        return max(TILE, min(PANEL_PX, fitting) // TILE * TILE)

    def _scaled(self, length: int) -> int:
        """Rounded half up; exact for the edges of windows."""
        return int(length * self.factor + Fraction(1, 2))


def falling(length: int) -> NDArray[np.float32]:
    """Weights along a side: 1 in the middle, falling linearly to almost 0 at both ends."""
    middles = np.arange(length, dtype=np.float32) + 0.5
    weights: NDArray[np.float32] = np.minimum(middles, length - middles) / np.float32(length / 2)
    return weights


def _starts(length: int, window: int, overlap: float, unit: int) -> list[int]:
    """Evenly spread multiples of `unit` at which windows begin that cover `length` px."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap) + 1e-9)) // unit * unit
    if step < 1:
        raise DataError(
            f"windows of {window} px that overlap by {overlap:g} can begin at multiples of {unit} px only, where the "
            "result's pixels do too; give a smaller --overlap, or scenes of one window"
        )
    last = -(-(length - window) // unit) * unit
    count = -(-last // step)
    return [number * last // count // unit * unit for number in range(count + 1)]


def _mean(total: Logits, weights: NDArray[np.float32]) -> Logits:
    mean = np.full_like(total, np.nan)
    np.divide(total, weights, out=mean, where=weights > 0)
    return mean
