"""Text files that are whole or as they were before."""

from __future__ import annotations

from pathlib import Path

from gfm.disk_room import is_full_disk
from gfm.errors import GfmError


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text under another name beside `path` and move it there; what is no plain file is written to.

    GfmError where nothing can be written there, or the disk is full: then nothing is left of it.
    """
    try:
        if path.is_dir():
            raise GfmError(f"{path}: is a folder; give the path of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a terminal must stay one
            path.write_text(text, encoding="utf-8")
            return
        path = path.resolve()  # a link stays one
        unfinished = path.with_name(f".{path.name}.part")
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        fix = "make room" if is_full_disk(error) else "give another place"
        raise GfmError(f"{path}: cannot be written ({error.strerror}); {fix}") from None
