"""What an assembly remembers for the next one: files under `.gfm/assembly`, whole or absent, each with its digest.

DVC removes a stage's output before the stage runs, so what outlives a run lies beside it. A name says all that the
content depends on (it ends in a digest of that); the digest stored with the content says that it is still as written.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import xxhash

from gfm.errors import GfmError

FOLDER = Path(".gfm/assembly")

_DIGEST_BYTES = 16
_CHUNK = 1 << 22
_UNFINISHED = ".part"


class Cache:
    """Remembered bytes and files, by name; a context manager that leaves nothing unfinished behind.

    One process uses it at a time: assembly holds the lock of its output.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._used: set[str] = set()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self.folder.glob(f"*/*{_UNFINISHED}"):
            path.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """What was written under a name, which is then kept by `prune`; None where nothing is, or it is damaged."""
        try:
            data = self._path(name).read_bytes()
        except OSError:  # what cannot be read is made again
            return None
        content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if _digest(name, content) != digest:
            return None
        self._used.add(name)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Remember bytes under a name, all of them or none."""
        unfinished = self.unfinished(name)
        unfinished.write_bytes(content + _digest(name, content))
        self.keep(name)

    def unfinished(self, name: str) -> Path:
        """Where to write a file that `keep` then gives its name."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise GfmError(
                f"{path.parent}: cannot be a folder, something else is there; remove {self.folder}"
            ) from None
        return path.with_name(path.name + _UNFINISHED)

    def keep(self, name: str) -> None:
        """Give a finished file its name."""
        path = self._path(name)
        if path.is_dir():
            shutil.rmtree(path)
        path.with_name(path.name + _UNFINISHED).replace(path)
        self._used.add(name)

    def has(self, name: str, size: int, digest: str) -> bool:
        """Whether a file is there with these bytes; it is then kept by `prune`."""
        path = self._path(name)
        if not path.is_file() or path.stat().st_size != size or file_digest(path) != digest:
            return False
        self._used.add(name)
        return True

    def link(self, name: str, target: Path) -> None:
        """Put a file at `target` too: by a hard link where the file system can, else by a copy."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._path(name), target)
        except OSError:  # another file system, one without links, or too many of them
            shutil.copyfile(self._path(name), target)

    def forget(self, name: str) -> None:
        """Remove what was written under a name."""
        self._path(name).unlink(missing_ok=True)
        self._used.discard(name)

    def prune(self) -> None:
        """Remove everything that was not used since this object was made."""
        for folder, _, files in os.walk(self.folder):
            for file in files:
                path = Path(folder, file)
                if path.relative_to(self.folder).as_posix() not in self._used:
                    with suppress(FileNotFoundError):
                        path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / name


def _digest(name: str, content: bytes) -> bytes:
    """Of a name too: another entry copied over this one is not believed."""
    return xxhash.xxh3_128_digest(name.encode() + b"\0" + content)


def file_digest(path: Path) -> str:
    """32 hex digits (xxh3, 128 bits) of a file's bytes."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return str(digest.hexdigest())
