"""What lies in tar and zip archives, one entry after another: nothing is extracted, and no entry's name is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gfm.geopile.archives.entry import Entry, EntryError, path_of
from gfm.geopile.archives.tar import GZIP, ZSTD, tar_entries
from gfm.geopile.archives.zip import ZIP, zip_entries
from gfm.imagery.raster import NOT_UTF8, readable_name, unreadable

__all__ = ["SUFFIXES", "TARS", "Entry", "EntryError", "entries", "path_of"]

TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
SUFFIXES = (*TARS, ".zip")

_LONGEST_NAME = 4096  # bytes; what Linux takes as a path


def entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """The entries of an open tar (plain, gzip or zstd) or zip archive, folders left out, in the archive's own order.

    Read forward once: a tar in one pass, which is all that a compressed one allows. The content, not the suffix, says
    what the archive is. Names are freed of `./`; the second entry of a name, and names that lead out of the archive or
    are no text, get a `reason`. Raises ImageError, after the entries before the damage, when the archive is no archive,
    cut or damaged; `path` only names it.
    """
    seen: set[str] = set()
    try:
        head = file.read(16)
        file.seek(0)
        listed = zip_entries(path, file) if head.startswith(ZIP) else tar_entries(path, file, _compression(head))
        for entry in listed:
            name, reason = _judged(entry.name)
            if name in seen:
                reason = reason or "the second entry of this name"
            seen.add(name)
            yield entry._replace(name=name, reason=reason or entry.reason)
    except OSError as error:
        raise unreadable(path, error) from None


def _compression(head: bytes) -> bytes:
    return next((magic for magic in (GZIP, ZSTD) if head.startswith(magic)), b"")


def _judged(stored: str) -> tuple[str, str]:
    """The name to use of an entry's stored name, and why the entry cannot be used, if so."""
    shown = readable_name(stored)
    if shown != stored:
        return shown, NOT_UTF8
    if len(stored.encode()) > _LONGEST_NAME or "\0" in stored:
        return f"{stored[:80]}…".replace("\0", "\\0"), "its name is no path"
    parts = stored.replace("\\", "/").split("/")  # `\` as some zips have it
    if not parts[0] or ".." in parts or parts[0].endswith(":"):
        return stored, "its name leads out of the archive"
    return "/".join(part for part in stored.split("/") if part not in ("", ".")), ""
