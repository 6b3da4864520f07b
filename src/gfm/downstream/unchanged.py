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

MOST_BYTES = 1_000_000_000  # that are read again


def check_unchanged(data: TaskFormat[Any], index: TaskIndex, table: Path) -> None:
    """DataError naming a file that was written after the index (`table`) and holds other bytes than it saw.

    Times are looked at first, and where everything is a fresh copy a gigabyte is read at most. Samples of several
    dates are not compared, since the index keeps one hash of all dates of a scene, of which a sample may name some; nor
    those in containers.
    """
    if data.task.dates is not None:
        return
    made, compared, read = table.stat().st_mtime_ns, set[str](), 0
    for row in index.rows:
        if row.content in compared:  # another chip of the scene
            continue
        compared.add(row.content)
        scene = Scene(row.sample.id, row.sample.place, row.sample.inputs, row.sample.target)
        try:
            found = {path: path.stat() for path in (data.raw / file for file in files_of(scene))}
            newer = [path for path, file in found.items() if file.st_mtime_ns > made]
            if not newer:
                continue
            read += sum(file.st_size for file in found.values())
            if read > MOST_BYTES:
                return
            same = data.content(scene) == row.content
        except (ImageError, OSError):  # in a container, or its reading says what is wrong
            continue
        if not same:
            raise DataError(f"{newer[0]}: has changed since `gfm index` looked at it; run `gfm index` again")
