"""Which dates stand for a series of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(dates: Sequence[Item], number: int) -> list[Item]:
    """At most `number` of some dates, evenly spread from the first to the last; their order stays."""
    if len(dates) <= number:
        return list(dates)
    step = (len(dates) - 1) / (number - 1)
    return [dates[int(position * step + 0.5)] for position in range(number)]
