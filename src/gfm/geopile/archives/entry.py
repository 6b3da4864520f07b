"""One entry of an archive, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gfm.imagery.raster import MAX_FILE_BYTES, ImageError


class Entry(NamedTuple):
    """One file in an archive; `read` gives its bytes until the next entry is asked for."""

    name: str
    size: int  # bytes, as declared
    reason: str  # why it cannot be used (a link, for one); empty where nothing speaks against it
    passed: float  # share of the archive that lies before it
    read: Callable[[], bytes]  # raises EntryError; ImageError where the archive itself ends or is damaged there


class EntryError(ImageError):
    """One entry that cannot be read; those after it can."""

    def __init__(self, archive: Path, name: str, reason: str) -> None:
        super().__init__(path_of(archive, name), reason)


def path_of(archive: Path, name: str) -> Path:
    """`ARCHIVE!NAME`: how an entry is named in lists and errors; nothing lies there."""
    return Path(f"{archive}!{name}")


def check_size(archive: Path, name: str, size: int) -> None:
    """Raise EntryError for an entry that declares more than MAX_FILE_BYTES."""
    if size > MAX_FILE_BYTES:
        raise EntryError(archive, name, f"is {size:,} bytes, more than {MAX_FILE_BYTES:,}")
