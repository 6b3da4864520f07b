"""Random numbers for the sample: splitmix64, integers only, so that no library version can change the imagery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

Item = TypeVar("Item")
Ints = npt.NDArray[np.int32]

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


class Dice:
    """A stream of integers that depends on its key alone (Steele et al., splitmix64)."""

    def __init__(self, *key: str | int) -> None:
        self._state = xxhash.xxh3_64_intdigest("/".join(str(part) for part in key).encode())

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        self._state = z = (self._state + _GOLDEN) & _WORD
        z = ((z ^ (z >> 30)) * _MIX_1) & _WORD
        z = ((z ^ (z >> 27)) * _MIX_2) & _WORD
        return ((z ^ (z >> 31)) >> 11) % limit

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def grid(self, height: int, width: int) -> Ints:
        """(height, width) independent integers in [0, 256)."""
        words = -(-height * width // 8)
        z = np.uint64(self._state) + np.arange(1, words + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        self._state = (self._state + words * _GOLDEN) & _WORD
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
        z = (z ^ (z >> np.uint64(31))).astype("<u8")
        return z.view(np.uint8)[: height * width].reshape(height, width).astype(np.int32)
