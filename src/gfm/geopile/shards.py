"""Shards: plain tar files of encoded images, written in order and read anywhere by offset and size.

Tar, because webdataset and every file manager read it; uncompressed, because the images are. Nothing in a shard
depends on time, user or machine.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
import xxhash

from gfm.geopile.row import Place

Image = np.ndarray[Any, np.dtype[np.uint8]]

JPEG_MAX_SIDE = 65500
_BLOCK = 512


class ShardWriter:
    """Writes images one after another into `folder`/00000.tar, 00001.tar, …; a context manager."""

    def __init__(self, folder: Path, shard_mb: float) -> None:
        self.folder, self.limit = folder, int(shard_mb * 1e6)
        self.shards = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> ShardWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, identity: str, data: bytes, suffix: str) -> Place:
        """Append one encoded image; returns where it lies. A shard is closed when it passes its size."""
        if self._file is None:
            self._file = (self.folder / f"{self.shards:05d}.tar").open("wb")
            self.shards += 1
        member = tarfile.TarInfo(member_name(identity) + suffix)
        member.size, member.mode = len(data), 0o644
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT))
        place = Place(f"{self.shards - 1:05d}.tar", self._file.tell(), len(data))
        self._file.write(data + bytes(-len(data) % _BLOCK))
        if self._file.tell() >= self.limit:
            self._close()
        return place

    def _close(self) -> None:
        if self._file is not None:
            self._file.write(bytes(2 * _BLOCK))  # the end of a tar
            self._file.close()
            self._file = None


def member_name(identity: str) -> str:
    """A name that every tar reader takes: the readable end of the id, and a hash that keeps it unique."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", identity)[-72:]
    return f"{readable}-{xxhash.xxh3_64_hexdigest(identity.encode())[:12]}"


def encode(image: Image, jpeg_quality: int) -> tuple[bytes, str]:
    """uint8 (H, W, C) -> bytes and suffix: a JPEG without chroma subsampling for one or three bands.

    Other band counts become a lossless TIFF of one page a band, which `decode_image` reads without rasterio.
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
    pages = [np.ascontiguousarray(image[..., band]) for band in range(image.shape[2])]
    done, buffer = cv2.imencodemulti(".tif", pages)
    if not done:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape}")
    return buffer.tobytes(), ".tif"
