"""Which of several images that show the same is kept."""

from __future__ import annotations


def preference(*, label: str | None, width: int, height: int, source: int, identity: str) -> tuple[bool, int, int, str]:
    """A sort key: the labelled image first, then the larger, then of the earlier source, then the smaller id.

    `source` is the source's place among the declared ones.
    """
    return label is None, -width * height, source, identity
