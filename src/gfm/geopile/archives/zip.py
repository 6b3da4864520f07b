"""Zip archives, by the list at their end; each entry's checksum is verified."""

from __future__ import annotations

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gfm.geopile.archives.entry import Entry, EntryError, check_size
from gfm.imagery.raster import ImageError, readable_name

ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second of one without entries

_ENCRYPTED, _UTF8 = 0x1, 0x800  # bits of an entry's flags
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound on memory
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, struct.error, zlib.error)


def zip_entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """The entries of an open zip file in the order of its list; errors as of `entries`."""
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE as error:
        _raise_if_of_the_disk(error)
        reason = "truncated or corrupt: a zip ends with the list of its files, which is missing or damaged"
        raise ImageError(path, reason, "fetch it again") from None
    with archive:
        listed = archive.infolist()
        for number, info in enumerate(listed):
            if not info.is_dir():
                read = partial(_read, path, archive, info)
                yield Entry(_name(info), info.file_size, _reason(info), number / len(listed), read)


def _name(info: zipfile.ZipInfo) -> str:
    """The name as UTF-8, which many zips hold without saying so; other bytes stay marked as such."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8", "surrogateescape")  # cp437: how zipfile read the bytes
    except UnicodeEncodeError:
        return info.filename


def _reason(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a regular file"
    return ""


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = readable_name(_name(info))
    check_size(path, name, info.file_size)
    if info.flag_bits & _ENCRYPTED:
        raise EntryError(path, name, "is encrypted")
    if info.compress_type not in _METHODS:
        raise EntryError(path, name, f"is compressed by a method other than deflate ({info.compress_type})")
    try:
        with archive.open(info) as member:  # gives no more bytes than the entry declares
            data = member.read(info.file_size)
            if len(data) < info.file_size or member.read(1):
                raise zipfile.BadZipFile
    except _DAMAGE as error:
        _raise_if_of_the_disk(error)
        raise EntryError(path, name, "truncated or corrupt inside its archive") from None
    return data


def _raise_if_of_the_disk(error: BaseException) -> None:
    """A disk that fails is not the archive's fault; a place that is none (EINVAL) is."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error
