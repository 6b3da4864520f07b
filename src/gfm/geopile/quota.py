"""Quotas: at most so many images of a class, so that a common one does not drown the others."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from gfm.geopile.row import Row
from gfm.params import Quota

OVER_QUOTA = "over quota"


def over_quota(rows: Sequence[Row], quota: Quota | None) -> set[int]:
    """The rows to leave out, by number: those of a class whose ids hash highest, until it has `quota.most` images.

    With a number as `most`, what is kept depends on the class's own images alone: another source or class changes
    nothing, and a new image takes the place of one other at most. `smallest` gives every class as many as the smallest
    has. Images without a class (unlabelled ones, by label) are all kept.
    """
    if quota is None:
        return set()
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        name = class_of(row, quota)
        if name is not None:
            members.setdefault(name, []).append(number)
    most = min(map(len, members.values()), default=0) if quota.most == "smallest" else quota.most
    return {number for numbers in members.values() for number in _ranked(rows, numbers)[most:]}


def class_of(row: Row, quota: Quota) -> str | None:
    """What an image counts as; a label means something only within its source."""
    if quota.by == "source":
        return row.source
    return None if row.label is None else f"{row.source}:{row.label}"


def _ranked(rows: Sequence[Row], numbers: Sequence[int]) -> list[int]:
    def chance(number: int) -> tuple[int, str]:
        identity = rows[number].id
        return xxhash.xxh3_64_intdigest(identity.encode()), identity

    return sorted(numbers, key=chance)
