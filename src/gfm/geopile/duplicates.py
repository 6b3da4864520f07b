"""Pictures that are in the collection twice: equal pixels, or looks within a few bits of dHash.

The same ground at another date is no duplicate unless it looks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from gfm.geopile.row import Row

EXACT = "exact duplicate"
NEAR = "near duplicate"

# Water, snow and plain gradients have almost no looks: their hashes agree without their being copies, and they would
# fill a few buckets of the index. Below this entropy, or with nearly all bits alike, only equal pixels count.
FLAT_BITS = 3.0
FEW_BITS = 6

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]

_BANDS, _BAND_BITS = 4, 16
_CHUNK = 1 << 22  # candidate pairs held at once


class Duplicate(NamedTuple):
    """Why an image is not kept, and the one that is."""

    reason: str
    kept: int


def find_duplicates(rows: Sequence[Row], sources: Sequence[str], bits: int) -> dict[int, Duplicate]:
    """The rows to drop, by number, within and across sources.

    Kept of a group is the labelled image, then the larger, then the one of the earlier source in `sources`, then the
    smaller id. An image is dropped only for one that is itself kept and within `bits` of it.
    """
    order = {source: number for number, source in enumerate(sources)}

    def preference(number: int) -> tuple[bool, int, int, str]:
        row = rows[number]
        return row.label is None, -row.width * row.height, order[row.source], row.id

    ranked = sorted(range(len(rows)), key=preference)
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


def close_pairs(left: Hashes, right: Hashes, bits: int) -> tuple[Numbers, Numbers]:
    """Every pair (i, j), each once and sorted, with left[i] and right[j] at most `bits` (0-16) apart.

    Two hashes within d bits agree to d // 4 bits in one of four 16-bit bands (a pigeonhole), so only images that share
    a band's neighbourhood are compared; nothing is missed. Equal hashes should be collapsed by the caller.
    """
    if not len(left) or not len(right):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pairs = []
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        keys = ((left >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        others = ((right >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        sorted_others = np.argsort(others, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(others, minlength=1 << _BAND_BITS))])
        for flip in _flips(bits // _BANDS):
            pairs += list(_joined(left, right, keys ^ flip, starts, sorted_others, bits))
    both = np.unique(np.concatenate([i * len(right) + j for i, j in pairs] or [np.empty(0, np.int64)]))
    return both // len(right), both % len(right)


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


def _flips(radius: int) -> Iterator[int]:
    """Every 16-bit pattern of at most `radius` set bits."""
    for count in range(radius + 1):
        for places in combinations(range(_BAND_BITS), count):
            yield sum(1 << place for place in places)


def _joined(
    left: Hashes, right: Hashes, keys: Numbers, starts: Numbers, sorted_others: Numbers, bits: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs whose band has the same key, a bounded number at a time, that are close as a whole."""
    first, counts = starts[keys], starts[keys + 1] - starts[keys]
    done = np.cumsum(counts)
    begin = 0
    while begin < len(keys):
        before = done[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(done, before + _CHUNK, side="right")))
        many = counts[begin:end]
        i = np.repeat(np.arange(begin, end), many)
        within = np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many)
        j = sorted_others[np.repeat(first[begin:end], many) + within]
        close = np.bitwise_count(left[i] ^ right[j]) <= bits
        yield i[close], j[close]
        begin = end
