"""What a task's parts share although no place is in two of them: the same ground, or pictures that look alike.

Ground is compared by outline, not by box: in degrees the boxes of neighbouring chips of a metric grid overlap by up to
a quarter. Pictures are compared by dHash, every date of one with every date of the other in any flip or turn; that is
no proof, so it is listed and not acted upon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gfm.downstream.sample import Sample
from gfm.downstream.split import PARTS, Part
from gfm.imagery.alike import alike, words
from gfm.imagery.footprint import Corners
from gfm.imagery.overlap import overlapping, shared_share

SHARED_GROUND = 0.01  # of the smaller outline; less is the rounding of edges that touch


class Pair(NamedTuple):
    """Positions of two samples of different parts: `held_out` is of the part that counts more."""

    sample: int
    held_out: int


def same_ground(parts: Sequence[Part], samples: Sequence[Sample], corners: Callable[[Sample], Corners]) -> list[Pair]:
    """Samples that share more than SHARED_GROUND of their ground with one of a part that counts more, sorted."""
    bounds = np.asarray([sample.bounds or (np.nan,) * 4 for sample in samples], np.float64).reshape(-1, 4)

    @cache
    def outline(position: int) -> Corners:
        return corners(samples[position])

    return sorted(
        Pair(int(lower[one]), int(higher[other]))
        for lower, higher in _two_parts(parts)
        for one, other in overlapping(bounds[lower], bounds[higher])
        if shared_share(outline(int(lower[one])), outline(int(higher[other]))) > SHARED_GROUND
    )


def near_duplicates(parts: Sequence[Part], dhashes: Sequence[Sequence[Sequence[str]]], bits: int) -> list[Pair]:
    """Samples that look like one of a part that counts more, within `bits`, sorted; plain pictures are not compared.

    `dhashes` holds, per sample and date, the hashes of the eight flips and turns, upright first.
    """
    owner = np.asarray([position for position, dates in enumerate(dhashes) for _ in dates], np.int64)
    hashes = words([variants for dates in dhashes for variants in dates])
    part_of = [parts[position] for position in owner]
    return sorted(
        {
            Pair(int(owner[lower[one]]), int(owner[higher[other]]))
            for lower, higher in _two_parts(part_of)
            for one, other in alike(hashes[lower, 0], hashes[higher], bits)
        }
    )


def _two_parts(parts: Sequence[Part]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Positions of each two parts; the second counts more: test more than validation, validation more than training."""
    at = {part: np.asarray([i for i, own in enumerate(parts) if own == part], np.int64) for part in PARTS}
    for lower, higher in combinations(PARTS, 2):
        yield at[lower], at[higher]
