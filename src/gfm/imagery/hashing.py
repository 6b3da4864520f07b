"""Fingerprints of images: of the exact pixels, of their looks in any orientation, and of files.

All arithmetic is on whole numbers: a hash is the same on every machine, and a turned image gives the turned hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xxhash

Image = np.ndarray[Any, np.dtype[np.uint8]]
Grid = np.ndarray[Any, np.dtype[np.int64]]

_CHUNK = 1 << 20
_TABLE_PX = 1 << 20  # of a summed-area table: 32 bits hold 8 times as many, and memory should not grow with the image


def pixel_hash(image: Image) -> str:
    """32 hex digits (xxh3, 128 bits) of a uint8 (H, W, C) image's shape and pixels: equal exactly for equal images."""
    digest = xxhash.xxh3_128("x".join(map(str, image.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return str(digest.hexdigest())


def dhash(image: Image) -> str:
    """16 hex digits of how a uint8 (H, W, C) image looks.

    Each bit says whether one of 8x8 cells of grey is darker than its neighbour to the right. Copies that were
    compressed again differ by a few bits at most; compare by `hamming`.
    """
    return _bits(_grid(grey(image), 8, 9))


def dihedral_dhashes(image: Image) -> list[str]:
    """The dHash of the image (first) and of its seven other flips and turns.

    The set is exactly the same for every flip and turn of an image: cells are sums of whole numbers, in any order.
    """
    image_grey = grey(image)
    upright = _grid(image_grey, 8, 9)
    turned = _grid(image_grey, 9, 8).T
    return [_bits(grid[rows, columns]) for grid in (upright, turned) for rows in _WAYS for columns in _WAYS]


def hamming(a: str, b: str) -> int:
    """How many bits differ between two hashes of hex digits."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def file_hash(paths: Iterable[Path]) -> str:
    """32 hex digits (xxh3, 128 bits) of the bytes of files, in the order given; names do not matter.

    Raises OSError when a file cannot be read.
    """
    digest = xxhash.xxh3_128()
    for path in paths:
        size = 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        digest.update(size.to_bytes(8, "little"))  # so that a byte moved from one file to the next is seen
    return str(digest.hexdigest())


def grey(image: Image) -> Image:
    """uint8 (H, W, C) -> uint8 (H, W): luma for three bands, else the mean of the bands rounded half up."""
    if image.shape[2] == 3:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    bands = image.shape[2]
    if bands == 1:
        return image[..., 0]
    wide = np.uint16 if bands <= 128 else np.uint32  # holds twice the sum
    total: np.ndarray[Any, np.dtype[np.uint16 | np.uint32]] = image[..., 0].astype(wide)
    for band in range(1, bands):  # band by band: eight times as fast as a sum over the last axis
        total = total + image[..., band].astype(wide)
    return np.asarray((2 * total + bands) // (2 * bands), dtype=np.uint8)


_WAYS = (slice(None), slice(None, None, -1))


def _grid(image_grey: Image, rows: int, columns: int) -> Grid:
    """Mean grey of each of rows x columns equal cells (area resize), rounded half up: int64 (rows, columns).

    Sums over cells are differences of the summed-area table (Crow, 1984) between their corners; a corner inside a pixel
    lies between four entries, weighted by where (its shares are whole numbers in units of 1/rows and 1/columns).
    """
    height, width = image_grey.shape
    (lines, down), (pixels, right) = _edges(height, rows), _edges(width, columns)
    above = down @ _summed_area(image_grey, lines, pixels) @ right.T
    bands = above[1:] - above[:-1]
    sums = bands[:, 1:] - bands[:, :-1]
    area = height * width
    mean: Grid = (2 * sums + area) // (2 * area)
    return mean


def _summed_area(image_grey: Image, lines: Grid, pixels: Grid) -> Grid:
    """The sums of all grey above some lines and left of some pixels: int64 (lines, pixels)."""
    height, width = image_grey.shape
    most = max(_TABLE_PX // width, 1)
    sums = np.zeros((len(lines), len(pixels)), np.int64)
    for top in range(0, height, most):
        table = cv2.integral(image_grey[top : top + most], sdepth=cv2.CV_32S)
        sums += table[np.clip(lines - top, 0, len(table) - 1)[:, None], pixels]
    return sums


@lru_cache(maxsize=64)
def _edges(length: int, cells: int) -> tuple[Grid, Grid]:
    """The entries beside the edges of `cells` equal cells of `length` pixels, and their shares in units of 1/cells.

    (2 (cells + 1),) entries, and (cells + 1, 2 (cells + 1)) shares of each of them in each edge.
    """
    before, share = np.divmod(np.arange(cells + 1) * length, cells)
    entries = np.concatenate([before, np.minimum(before + 1, length)])
    return entries, np.concatenate([np.diag(cells - share), np.diag(share)], axis=1)


def _bits(grid: Grid) -> str:
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes().hex()
