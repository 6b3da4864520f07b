"""Tar archives, plain or compressed, read forward in one pass.

Not by tarfile's own loop: it takes a damaged header for the end of the archive, and so loses the rest without a word,
seeks backwards where a header says so, and keeps every header in memory.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gfm.geopile.archives.entry import Entry, check_size
from gfm.imagery.raster import ImageError, readable_name

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"

_BLOCK = 512
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 20  # of a name or attributes too long for one block
_MOST_PADDING = 16 << 20  # zeros after the end, which tapes and `tar --blocking-factor` write
_AGAIN = "fetch it again"

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)

_NOT_FILES = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def tar_entries(path: Path, file: BinaryIO, compression: bytes) -> Iterator[Entry]:
    """The entries of an open tar file, compressed as GZIP or ZSTD say (b"": not), in order; errors as of `entries`."""
    stream = _Forward(path, file, compression)
    long: dict[str, bytes] = {}  # what headers before an entry say of it
    before = ""
    while True:
        block = stream.take(_BLOCK)
        if not any(block) and len(block) == _BLOCK:
            stream.check_end()
            return
        header = _header(path, block, before)
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, *_PAX):
            if header.size > _LONGEST_HEADER:
                raise _damaged(path, before)
            payload = stream.take(header.size)
            stream.skip(-header.size % _BLOCK)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long["path"] = payload.rstrip(b"\0")
            elif header.type in _PAX:
                long |= _attributes(path, payload, before)
            continue
        name, size, reason = _described(path, header, long, before)
        long = {}
        more = header.type == tarfile.GNUTYPE_SPARSE and block[482]  # blocks with the rest of its map
        while more:
            block = stream.take(_BLOCK)
            more = len(block) == _BLOCK and block[504]
        if header.type != tarfile.DIRTYPE:
            body = _Body(path, name, size if _has_body(header) else 0, stream)
            yield Entry(name, size, reason, stream.passed, body.read)
            stream.skip(body.left)
            stream.skip(-body.size % _BLOCK)
        before = _shown(name)


def _header(path: Path, block: bytes, before: str) -> tarfile.TarInfo:
    if not block and before:
        reason = f"cut off after {before}, or written without a tar's end"
        raise ImageError(path, reason, _AGAIN)
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise _damaged(path, before) from None
    if header.size < 0:
        raise _damaged(path, before)
    return header


def _has_body(header: tarfile.TarInfo) -> bool:
    """Bytes follow files and what is unknown; a link or device has none, whatever size its header names."""
    return header.isreg() or header.type not in tarfile.SUPPORTED_TYPES


def _described(path: Path, header: tarfile.TarInfo, long: dict[str, bytes], before: str) -> tuple[str, int, str]:
    """Name, size and why it cannot be used, of the entry's own header and of what the headers before it said."""
    name = long["path"].decode("utf-8", "surrogateescape") if "path" in long else header.name
    size = header.size
    if "size" in long:
        if not long["size"].isdigit() or len(long["size"]) > 20:
            raise _damaged(path, before)
        size = int(long["size"])
    what = _NOT_FILES.get(header.type, "" if header.isreg() else "not a regular file")
    if "sparse" in long:
        what = "a sparse file"
    return name, size, f"is {what}" if what else ""


def _attributes(path: Path, payload: bytes, before: str) -> dict[str, bytes]:
    """`path`, `size` and `sparse` of a pax header, which is records `LENGTH KEY=VALUE\\n`; no others."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(payload):
        space = payload.find(b" ", at, at + 10)
        length = payload[at:space]
        if space < 0 or not length.isdigit() or not space < at + int(length) <= len(payload):
            raise _damaged(path, before)
        key, _, value = payload[space + 1 : at + int(length) - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = b""
        at += int(length)
    return found


def _damaged(path: Path, before: str) -> ImageError:
    if not before:
        return ImageError(path, "not a tar or zip archive, or damaged at its start", _AGAIN)
    return ImageError(path, f"cut or damaged after {before}", _AGAIN)


def _shown(name: str) -> str:
    return readable_name(name)[:200]


class _Body:
    """The bytes of one entry, read once or not at all."""

    def __init__(self, path: Path, name: str, size: int, stream: _Forward) -> None:
        self.path, self.name, self.size, self.left, self._stream = path, name, size, size, stream

    def read(self) -> bytes:
        check_size(self.path, readable_name(self.name), self.size)
        data = self._stream.take(self.left)
        if len(data) < self.left:
            raise ImageError(self.path, f"truncated: ends inside {_shown(self.name)}", _AGAIN)
        self.left = 0
        return data


class _Forward:
    """A file, decompressed, that is read forward only."""

    def __init__(self, path: Path, file: BinaryIO, compression: bytes) -> None:
        self._path, self._file, self._compressed = path, file, bool(compression)
        self._bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._source: Any = file
        if compression == GZIP:
            self._source = gzip.GzipFile(fileobj=file)
        elif compression == ZSTD:
            import pyarrow as pa

            self._source = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")

    @property
    def passed(self) -> float:
        """The share of the file that was read."""
        return min(self._file.tell() / max(self._bytes, 1), 1.0)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer where the file ends; ImageError where its compressed data is damaged."""
        parts = []
        while size > 0 and (part := self._read(min(size, _CHUNK))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes; ImageError where the file ends before."""
        if not size:
            return
        if not self._compressed:
            size -= max(self._bytes - self._file.tell(), 0)
            self._file.seek(min(size, 0), os.SEEK_END)
        while self._compressed and size > 0 and (part := self._read(min(size, _CHUNK))):
            size -= len(part)
        if size > 0:
            raise ImageError(self._path, "truncated: ends inside its last file", _AGAIN)

    def check_end(self) -> None:
        """Raise ImageError when more than padding follows the tar's end; compressed data's checksum comes last."""
        left = _MOST_PADDING
        while part := self._read(_CHUNK):
            left -= len(part)
            if left < 0 or any(part):
                fix = "split archives that were put together"
                raise ImageError(self._path, "goes on after its end, which is not read", fix)

    def _read(self, size: int) -> bytes:
        try:
            return bytes(self._source.read(size))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            reason = "truncated or corrupt: its compressed data is cut or damaged"
            raise ImageError(self._path, reason, _AGAIN) from None
