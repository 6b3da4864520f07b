"""Which maps of a stopped call are finished: a record beside them says what of and what bytes they were."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gfm.imagery.hashing import file_hash


def record_name(scene: str) -> str:
    """What the record of a scene of this name is called."""
    return f".{scene}.finished"


def is_finished(record: Path, made_from: str, files: Sequence[Path]) -> bool:
    """Whether `set_finished` was called with the same, and each of the files is there as it was then, byte for byte."""
    try:
        return record.read_bytes() == _content(made_from, files)
    except OSError:
        return False


def set_finished(record: Path, made_from: str, files: Sequence[Path]) -> None:
    """Record that the files are whole; `made_from` is all that they depend on, as a digest."""
    with suppress(OSError):  # without its record a scene is made again, no more
        record.write_bytes(_content(made_from, files))


def _content(made_from: str, files: Sequence[Path]) -> bytes:
    return f"{made_from} {file_hash(files)}\n".encode()
