"""The two lists of what is not in the collection: files that cannot be used, and usable images that were dropped."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Refusal(NamedTuple):
    """A file that cannot be used."""

    source: str
    file: str  # relative to paths.raw
    reason: str


class Dropped(NamedTuple):
    """A usable image that is not kept."""

    source: str
    id: str
    reason: str
    kept: str = ""  # the image that is kept in its place, where it is a duplicate


def write_quarantine(path: Path, refusals: Iterable[Refusal]) -> None:
    """`source,file,reason`, sorted."""
    _write(path, Refusal._fields, sorted(refusals))


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """`source,id,reason,kept`; give them sorted by source and id."""
    _write(path, Dropped._fields, dropped)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
