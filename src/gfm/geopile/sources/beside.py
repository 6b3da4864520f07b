"""What GDAL reads along with a raster without being asked: world files, .aux.xml, .ovr, .msk."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gfm.geopile.sources.suffixes import PICTURES, RASTERS


class FileStatus(NamedTuple):
    """A file's name, its bytes and its time of change."""

    name: str
    size: int
    changed_ns: int


def statuses(folder: Path) -> list[FileStatus]:
    """Of a folder's files, sorted; OSError where it cannot be read."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # a link to nothing
                continue
            if stat.S_ISREG(status.st_mode):
                found.append(FileStatus(entry.name, status.st_size, status.st_mtime_ns))
    return sorted(found)


def beside(path: Path) -> list[FileStatus]:
    """The files beside a raster that belong to it; nothing beside other pictures. Folders are remembered."""
    return _beside(path.parent).get(path.stem, []) if path.name.lower().endswith(RASTERS) else []


def forget_folders() -> None:
    """Look again at folders seen before."""
    _beside.cache_clear()


@lru_cache(maxsize=4)  # files are asked for folder by folder
def _beside(folder: Path) -> dict[str, list[FileStatus]]:
    found: dict[str, list[FileStatus]] = defaultdict(list)
    for status in statuses(folder):
        if not status.name.lower().endswith(PICTURES):
            stem = re.sub(r"(\.tiff?)?(\.aux)?\.[^.]*$", "", status.name, flags=re.IGNORECASE)
            found[stem].append(status)
    return dict(found)
