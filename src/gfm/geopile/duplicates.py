"""Pictures that are in the collection twice: equal pixels, or looks within a few bits of dHash.

The same ground at another date is no duplicate unless it looks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gfm.geopile.row import Row
from gfm.imagery.alike import close_pairs
from gfm.imagery.preference import preference

EXACT = "exact duplicate"
NEAR = "near duplicate"

# Water, snow and plain gradients have almost no looks: their hashes agree without their being copies, and they would
# fill a few buckets of the index. Below this entropy, or with nearly all bits alike, only equal pixels count.
FLAT_BITS = 3.0
FEW_BITS = 6


class Duplicate(NamedTuple):
    """Why an image is not kept, and the one that is."""

    reason: str
    kept: int


def find_duplicates(rows: Sequence[Row], sources: Sequence[str], bits: int) -> dict[int, Duplicate]:
    """The rows to drop, by number, within and across sources.

    Kept of a group is the one that `gfm.imagery.preference` puts first. An image is dropped only for one that is itself
    kept and within `bits` of it.
    """
    order = {source: number for number, source in enumerate(sources)}

    def rank(number: int) -> tuple[bool, int, int, str]:
        row = rows[number]
        return preference(
            label=row.label, width=row.width, height=row.height, source=order[row.source], identity=row.id
        )

    ranked = sorted(range(len(rows)), key=rank)
    first: dict[str, int] = {}
    equal: dict[int, int] = {}
    for number in ranked:
        kept = first.setdefault(rows[number].pixel_hash, number)
        if kept != number:
            equal[number] = kept
    near = _near([number for number in ranked if number not in equal and _has_looks(rows[number])], rows, bits)
    found = {number: Duplicate(NEAR, kept) for number, kept in near.items()}
    for number, kept in equal.items():
        found[number] = Duplicate(EXACT, near.get(kept, kept))
    return found


def _near(ranked: Sequence[int], rows: Sequence[Row], bits: int) -> dict[int, int]:
    """Dropped row -> kept row, for rows in order of preference."""
    groups: dict[str, list[int]] = {}
    for number in ranked:
        groups.setdefault(rows[number].dhash, []).append(number)
    hashes = np.array([int(looks, 16) for looks in groups], dtype=np.uint64)
    members = list(groups.values())
    better: dict[int, list[int]] = {}  # groups are in order of their best member, so a smaller number is preferred
    for one, other in zip(*(side.tolist() for side in close_pairs(hashes, hashes, bits)), strict=True):
        if one < other:
            better.setdefault(other, []).append(one)
    dropped: dict[int, int] = {}
    for group, numbers in enumerate(members):
        kept = next((members[i][0] for i in sorted(better.get(group, [])) if members[i][0] not in dropped), numbers[0])
        dropped.update({number: kept for number in numbers if number != kept})
    return dropped


def _has_looks(row: Row) -> bool:
    return row.entropy_bits >= FLAT_BITS and FEW_BITS <= int(row.dhash, 16).bit_count() <= 64 - FEW_BITS
