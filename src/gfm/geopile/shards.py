"""Shards: plain tar files of encoded images, written in order and read anywhere by offset and size.

Tar, because webdataset and every file manager read it; uncompressed, because the images are. Nothing in a shard
depends on time, user or machine.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import xxhash

from gfm.imagery.alike import Numbers, Words
from gfm.imagery.band_tiff import encode_bands

Image = np.ndarray[Any, np.dtype[np.uint8]]

JPEG_MAX_SIDE = 65500
_BLOCK = 512


def _nameless() -> bytes:
    member = tarfile.TarInfo()
    member.mode = 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


_NAMELESS = _nameless()


class Encoded(NamedTuple):
    """One image, ready for a shard."""

    id: str
    data: bytes
    suffix: str


class Packed(NamedTuple):
    """Some images as they stand in a shard."""

    data: bytes
    places: list[tuple[int, int]]  # of each: its offset in `data`, and its size


class ShardWriter:
    """Writes images one after another into one tar; a context manager that ends it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = xxhash.xxh3_128()

    @property
    def digest(self) -> str:
        """Of what was written, as `file_digest` gives it of the file."""
        return str(self._digest.hexdigest())

    def __enter__(self) -> ShardWriter:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._write(bytes(2 * _BLOCK))  # the end of a tar

    def add(self, identity: str, data: bytes, suffix: str) -> int:
        """Append one encoded image; the offset of its bytes."""
        ((offset, _),) = self.append(pack([Encoded(identity, data, suffix)]))
        return offset

    def append(self, packed: Packed) -> list[tuple[int, int]]:
        """Append images; the offset and size of the bytes of each."""
        begin = self.size
        self._write(packed.data)
        return [(begin + offset, size) for offset, size in packed.places]

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


def pack(images: Iterable[Encoded]) -> Packed:
    """Images as members of a tar: done by the workers, so that one process can write for many."""
    blocks: list[bytes] = []
    places = []
    end = 0
    for image in images:
        size = len(image.data)
        places.append((end + _BLOCK, size))
        blocks += [_header(member_name(image.id) + image.suffix, size), image.data, bytes(-size % _BLOCK)]
        end += _BLOCK + size + -size % _BLOCK
    return Packed(b"".join(blocks), places)


def _header(name: str, size: int) -> bytes:
    """What `tarfile` writes before a file, in a tenth of its time: the fields that differ, and the sum of all bytes."""
    block = bytearray(_NAMELESS)
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def cut_shards(marks: Words, sizes: Numbers, shard_mb: float) -> list[slice]:
    """Where to cut images, in their order, into shards of about `shard_mb`.

    `marks` are one random word an image, the same for the same image; `sizes` its bytes, about. The images' own marks
    say where a shard ends, so that one more or less changes the shard it is in and leaves the others as they are: a
    shard ends where a mark says so from half the size on (content-defined chunking; Muthitacharoen et al., 2001), at
    twice the size in any case.
    """
    target = shard_mb * 1e6
    ends = marks < np.minimum(sizes / (target / 2), 1) * float(2**64 - 2**11)  # so often: once in half the size
    done = np.cumsum(sizes)
    cuts = []
    begin, before = 0, 0
    candidates = np.flatnonzero(ends)
    while begin < len(sizes):
        least = int(np.searchsorted(done, before + target / 2))  # the image that passes half the size
        most = int(np.searchsorted(done, before + 2 * target))
        marked = int(np.searchsorted(candidates, least))
        end = min(int(candidates[marked]) if marked < len(candidates) else len(sizes), most, len(sizes) - 1) + 1
        cuts.append(slice(begin, end))
        begin, before = end, int(done[end - 1])
    return cuts


def member_name(identity: str) -> str:
    """A name that every tar reader takes: the readable end of the id, and a hash that keeps it unique."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", identity)[-72:]
    return f"{readable}-{xxhash.xxh3_64_hexdigest(identity.encode())[:12]}"


def encode(image: Image, jpeg_quality: int) -> tuple[bytes, str]:
    """uint8 (H, W, C) -> bytes and suffix: a JPEG without chroma subsampling for one or three bands.

    Other band counts become a lossless TIFF, which `decode_image` reads without rasterio.
    """
    if image.shape[2] in (1, 3):
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(image),
            quality=jpeg_quality,
            colorspace="RGB" if image.shape[2] == 3 else "GRAY",
            colorsubsampling="444" if image.shape[2] == 3 else "Gray",
            fastdct=False,  # the fast one differs between processors
        )
        return data, ".jpg"
    return encode_bands(image), ".tif"
