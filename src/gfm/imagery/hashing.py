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

    Products of whole numbers below 2**53 are exact in float64, which is what makes the matrix product fast and exact.
    """
    height, width = image_grey.shape
    sums = _lines_added(image_grey, rows).astype(np.float64) @ _shares(width, columns).T
    area = height * width
    mean: Grid = (2 * sums.astype(np.int64) + area) // (2 * area)
    return mean


def _lines_added(image_grey: Image, rows: int) -> Grid:
    """The lines of each of `rows` equal bands added up, in units of 1/rows of a line: int64 (rows, W)."""
    height = len(image_grey)
    edges = np.arange(rows + 1) * height  # in these units
    first, last = edges[:-1] // rows, -(-edges[1:] // rows)
    # OpenCV adds up bytes four times as fast as a product of matrices, which are of floats.
    bands = [image_grey[begin:end] for begin, end in zip(first.tolist(), last.tolist(), strict=True)]
    whole = [cv2.reduce(band, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S) for band in bands]
    added: Grid = rows * np.concatenate(whole).astype(np.int64)
    if height % rows:  # a line that two bands share
        above, below = edges[:-1] - first * rows, last * rows - edges[1:]
        added -= above[:, None] * image_grey[first].astype(np.int64)
        added -= below[:, None] * image_grey[last - 1].astype(np.int64)
    return added


@lru_cache(maxsize=64)
def _shares(length: int, cells: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(cells, length): how much of each pixel lies in each cell, in units of 1/cells of a pixel (whole numbers)."""
    starts = np.arange(length) * cells
    edges = np.arange(cells)[:, None] * length
    overlap = np.minimum(starts + cells, edges + length) - np.maximum(starts, edges)
    shares: np.ndarray[Any, np.dtype[np.float64]] = np.clip(overlap, 0, None).astype(np.float64)
    return shares


def _bits(grid: Grid) -> str:
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes().hex()
