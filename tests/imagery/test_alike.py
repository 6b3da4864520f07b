"""The search among dHashes finds every pair within the distance, and no other, without comparing all with all."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.imagery.alike import alike, close_pairs, telling


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 16), st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(0, 60))
def test_every_close_pair_is_found_once_and_no_other(bits: int, seed: int, many: int, more: int) -> None:
    rng = np.random.default_rng(seed)

    def hashes(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        flips = rng.random((count, 64)) < rng.choice([0.02, 0.1, 0.5])
        return np.packbits(flips, axis=1).view(np.uint64).ravel()

    left, right = hashes(many), hashes(more)
    i, j = close_pairs(left, right, bits)
    found = list(zip(i.tolist(), j.tolist(), strict=True))
    wanted = [(a, b) for a in range(many) for b in range(more) if (int(left[a]) ^ int(right[b])).bit_count() <= bits]
    assert found == wanted


def test_two_hundred_thousand_images_are_compared_in_seconds() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    hashes[100_000:100_500] = hashes[:500] ^ np.uint64(1 << 40 | 1 << 3)
    i, _ = close_pairs(hashes, hashes, 3)
    assert len(i) == len(hashes) + 2 * 500


def test_the_search_finds_exactly_the_pairs_within_the_distance() -> None:
    dice = np.random.default_rng(3)
    upright = dice.integers(0, 2**64, 300, dtype=np.uint64)
    variants = dice.integers(0, 2**64, (200, 8), dtype=np.uint64)
    for number in range(150):  # planted: some bits of a known hash turned over
        flips = dice.choice(64, dice.integers(0, 9), replace=False).astype(np.uint64)
        variants[number, dice.integers(0, 8)] = upright[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=0)
    distance = np.bitwise_count(upright[:, None, None] ^ variants[None]).astype(int)
    comparable = telling(upright)[:, None, None] & telling(variants)[None]
    for bits in (0, 3, 5, 8):
        wanted = np.argwhere((comparable & (distance <= bits)).any(axis=2))
        assert alike(upright, variants, bits).tolist() == wanted.tolist()


def test_a_large_collection_is_compared_without_holding_all_pairs() -> None:
    dice = np.random.default_rng(4)
    upright = dice.integers(0, 2**64, 200_000, dtype=np.uint64)
    variants = dice.integers(0, 2**64, (2_000, 8), dtype=np.uint64)
    variants[7, 3] = upright[123_456] ^ np.uint64(0b10001)
    assert alike(upright, variants, 3).tolist() == [[123_456, 7]]
