"""Shards: plain tar files of encoded images, written in order and read anywhere by offset and size.

Tar, because webdataset and every file manager read it; uncompressed, because the images are. Nothing in a shard
depends on time, user or machine.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import simplejpeg
import xxhash

from gfm.imagery.alike import Numbers, Words
from gfm.imagery.band_tiff import encode_bands

Image = np.ndarray[Any, np.dtype[np.uint8]]

JPEG_MAX_SIDE = 65500
_BLOCK = 512


class ShardWriter:
    """Writes images one after another into one tar; a context manager that ends it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> ShardWriter:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.write(bytes(2 * _BLOCK))  # the end of a tar

    def add(self, identity: str, data: bytes, suffix: str) -> int:
        """Append one encoded image; the offset of its bytes."""
        member = tarfile.TarInfo(member_name(identity) + suffix)
        member.size, member.mode = len(data), 0o644
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self._file.tell()
        self._file.write(data + bytes(-len(data) % _BLOCK))
        return offset


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
