"""Whether the files that an index lists are still those that it saw, as far as that can be known at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfm.downstream.formats import TaskFormat
from gfm.downstream.formats.format import files_of
from gfm.downstream.sample import Scene
from gfm.downstream.table import TaskIndex
from gfm.errors import DataError
from gfm.imagery.raster import ImageError

MOST = 256  # scenes that are read again


def check_unchanged(data: TaskFormat[Any], index: TaskIndex, table: Path) -> None:
    """DataError naming a file that was written after the index (`table`) and holds other bytes than it saw.

    Times are looked at first, so that a fresh copy of everything costs the reading of a few scenes. Samples of several
    dates are not compared: the index keeps one hash of all dates of a scene, of which a sample may name some.
    """
    if data.task.dates is not None:
        return
    made, compared = table.stat().st_mtime_ns, set[str]()
    for row in index.rows:
        scene = Scene(row.sample.id, row.sample.place, row.sample.inputs, row.sample.target)
        newer = [file for file in files_of(scene) if _written(data.raw / file) > made]
        if not newer or row.content in compared:
            continue
        compared.add(row.content)
        if len(compared) > MOST:
            return
        try:
            same = data.content(scene) == row.content
        except (ImageError, OSError):  # its reading says what is wrong
            continue
        if not same:
            raise DataError(f"{data.raw / newer[0]}: has changed since `gfm index` looked at it; run `gfm index` again")


def _written(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 where it cannot be looked at."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
