"""Which pictures look alike: search among many dHashes for those within a few bits, in any flip or turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

# A hash must change at least so often, of 56 times, from bit to bit along its rows and along its columns. Less is the
# hash of something flat, evenly shaded or striped, which thousands of unrelated pictures share.
TELLING_CHANGES = 10

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_BANDS, _BAND_BITS = 4, 16
_PAIRS_AT_ONCE = 1 << 20  # candidate pairs held in memory


def words(hashes: Sequence[Sequence[str]]) -> Words:
    """Hex hashes as (N, variants) 64-bit words."""
    variants = len(hashes[0]) if hashes else 1
    packed = (int(value, 16) for variants_of_one in hashes for value in variants_of_one)
    return np.fromiter(packed, np.uint64).reshape(len(hashes), variants)


def telling(hashes: Words) -> npt.NDArray[np.bool_]:
    """Whether each hash says enough about a picture to be compared (see TELLING_CHANGES)."""
    eighth = np.uint64(8)
    one = np.uint64(1)
    last_column = np.uint64(0x7F7F7F7F7F7F7F7F)  # the 7 pairs inside each row of 8 bits
    along_rows = np.bitwise_count((hashes ^ (hashes >> one)) & last_column)
    last_row = np.uint64(0x00FFFFFFFFFFFFFF)
    along_columns = np.bitwise_count((hashes ^ (hashes >> eighth)) & last_row)
    result: npt.NDArray[np.bool_] = (along_rows >= TELLING_CHANGES) & (along_columns >= TELLING_CHANGES)
    return result


def alike(upright: Words, variants: Words, bits: int) -> Numbers:
    """Pairs (image, entry), (P, 2) and unique, whose telling hashes differ by at most `bits` (0-16) in any variant.

    `upright` is (N,), one hash an image; `variants` (M, V), an entry's flips and turns.
    """
    entries = np.repeat(np.arange(len(variants)), variants.shape[1])
    queries = variants.reshape(-1)
    keep = telling(queries)
    entries, queries = entries[keep], queries[keep]
    images = np.flatnonzero(telling(upright))
    image, query = close_pairs(upright[images], queries, bits)
    return np.unique(np.stack([images[image], entries[query]], axis=1), axis=0)


def close_pairs(left: Words, right: Words, bits: int) -> tuple[Numbers, Numbers]:
    """Every pair (i, j), each once and sorted, with left[i] and right[j] at most `bits` (0-16) apart.

    Two hashes within d bits agree to d // 4 bits in one of four 16-bit bands (a pigeonhole; Norouzi et al., multi-index
    hashing), so only those that share a band's neighbourhood are compared; nothing is missed. Where many hashes are
    equal, collapse them first: all their pairs are returned.
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


def _flips(radius: int) -> Iterator[int]:
    """Every 16-bit pattern of at most `radius` set bits."""
    for count in range(radius + 1):
        for places in combinations(range(_BAND_BITS), count):
            yield sum(1 << place for place in places)


def _joined(
    left: Words, right: Words, keys: Numbers, starts: Numbers, sorted_others: Numbers, bits: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs whose band has the same key, a bounded number at a time, that are close as a whole."""
    first, counts = starts[keys], starts[keys + 1] - starts[keys]
    done = np.cumsum(counts)
    begin = 0
    while begin < len(keys):
        before = done[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(done, before + _PAIRS_AT_ONCE, side="right")))
        many = counts[begin:end]
        i = np.repeat(np.arange(begin, end), many)
        within = np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many)
        j = sorted_others[np.repeat(first[begin:end], many) + within]
        close = np.bitwise_count(left[i] ^ right[j]) <= bits
        yield i[close], j[close]
        begin = end
