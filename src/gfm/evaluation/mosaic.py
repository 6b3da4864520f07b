"""A few images of a source side by side, chosen by the hash of their ids: the same ones each time."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xxhash
from PIL import Image

from gfm.imagery.shard_reader import ShardReader, decode_image

COLUMNS = ("id", "shard", "offset", "size")
ACROSS, DOWN = 8, 2
TILE_PX = 132
GAP_PX = 4
_GAP_GREY = 144  # shows on light and on dark pages

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def sample_mosaic(rows: pd.DataFrame, reader: ShardReader, bands: Sequence[str]) -> bytes:
    """A PNG of up to ACROSS x DOWN images of `rows` (COLUMNS of the manifest, at least one), each cut to a square.

    Errors and bands are as of `mosaic`.
    """
    ranks = [xxhash.xxh3_64_intdigest(name.encode()) for name in rows["id"]]
    chosen = rows.iloc[heapq.nsmallest(ACROSS * DOWN, range(len(ranks)), key=ranks.__getitem__)]
    return mosaic(chosen, reader, bands)


def mosaic(rows: pd.DataFrame, reader: ShardReader, bands: Sequence[str], across: int = ACROSS) -> bytes:
    """A PNG of all these images (COLUMNS of the manifest, at least one) in their order, `across` in a line.

    Shown are the bands R, G and B, or the first three, or the first in grey. Raises DataError where a shard is not as
    the manifest says.
    """
    tiles = [
        _tile(decode_image(reader.bytes(shard, int(offset), int(size)), name), bands)
        for name, shard, offset, size in rows[list(COLUMNS)].to_numpy()
    ]
    across, down = min(len(tiles), across), -(-len(tiles) // across)
    step = TILE_PX + GAP_PX
    sheet = np.full((down * step - GAP_PX, across * step - GAP_PX, 3), _GAP_GREY, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // across * step, number % across * step
        sheet[y : y + TILE_PX, x : x + TILE_PX] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _tile(image: Picture, bands: Sequence[str]) -> Picture:
    """(H, W, C) -> (TILE_PX, TILE_PX, 3): the middle square."""
    if {"R", "G", "B"} <= set(bands):
        numbers = [bands.index(band) for band in "RGB"]
    else:
        numbers = [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]
    side = min(image.shape[:2])
    y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[y : y + side, x : x + side][..., numbers])
    # Pillow counts in whole numbers: the same bytes on every processor, as of everything that a data stage writes.
    way = Image.Resampling.BOX if side > TILE_PX else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(square).resize((TILE_PX, TILE_PX), way), dtype=np.uint8)
