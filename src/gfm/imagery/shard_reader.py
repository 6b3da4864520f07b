"""Random access to images inside the collection's tar shards, by shard name, byte offset and size.

The manifest says where each image's bytes lie, so nothing is unpacked and no tar index is walked.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm.errors import DataError
from gfm.imagery.band_tiff import decode_bands
from gfm.imagery.pictures import PictureError, decode_jpeg, decode_png, is_jpeg, is_png


class ShardReader:
    """Reads byte ranges of the shards in one folder.

    Files are opened on first use and once a process: after a fork, or when sent to a spawned worker, it opens
    its own, so readers in several processes never share a file position.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}
        self._process = os.getpid()

    def bytes(self, shard: str, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset` of shard file `shard`; DataError where the shard is missing or too short."""
        data = os.pread(self._file(shard), size, offset)
        if len(data) != size:
            raise DataError(
                f"{self.folder / shard}: ends before byte {offset + size}, where the manifest places an image; "
                "run `gfm assemble` again"
            )
        return data

    def close(self) -> None:
        """Close this process's files; a later read opens them again."""
        if self._process == os.getpid():
            for file in self._files.values():
                os.close(file)
        self._files = {}

    def __getstate__(self) -> dict[str, Path]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def __del__(self) -> None:
        if hasattr(self, "_files"):  # not when __init__ was refused
            self.close()

    def _file(self, shard: str) -> int:
        if self._process != os.getpid():  # after a fork: inherited descriptors belong to the parent
            self._files, self._process = {}, os.getpid()
        file = self._files.get(shard)
        if file is None:
            try:
                file = os.open(self.folder / shard, os.O_RDONLY)
            except OSError as error:
                raise DataError(
                    f"{self.folder / shard}: {error.strerror}, though the manifest names it; run `gfm assemble` again"
                ) from None
            self._files[shard] = file
        return file


def decode_image(data: bytes, name: str, enough_px: int | None = None) -> NDArray[np.uint8]:
    """Decode an image of a shard (JPEG, PNG or TIFF) to (H, W, C) uint8, bands in order.

    With `enough_px` a large JPEG comes smaller (see decode_jpeg), and nothing else does.
    `name` names the image in the DataError that unreadable bytes raise.
    """
    try:
        if is_jpeg(data):
            return decode_jpeg(data, enough_px=enough_px)
        if is_png(data):
            return decode_png(data)
        if (image := decode_bands(data)) is not None:
            return image
    except PictureError as error:
        raise DataError(f"{name}: {error.reason}; run `gfm assemble` again") from None
    except ValueError as error:
        raise DataError(f"{name}: {error}; run `gfm assemble` again") from None
    import cv2  # for what older collections hold: a page a band

    done, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else (False, ())
    if not done:
        raise DataError(f"{name}: not a readable JPEG, PNG or TIFF; run `gfm assemble` again")
    return np.stack(pages, axis=-1)
