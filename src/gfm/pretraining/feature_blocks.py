"""Features of images block by block under `.gfm/features`, so that a kill costs the block in hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from gfm import layout
from gfm.pretraining.collection import Rows

FOLDER = Path(".gfm/features")
BLOCK = 512  # images, about: a whole number of batches, which are then the same whatever is remembered

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class FeatureBlocks:
    """Half floats (images, channels) of the same rows in the same batches; each block is whole, with its digest."""

    folder: Path
    images: int
    channels: int
    batch_size: int

    @classmethod
    def of(cls, purpose: str, rows: Rows, channels: int, batch_size: int, depends: Mapping[str, Any]) -> FeatureBlocks:
        """Those for one purpose; `depends` is what features depend on besides the rows and their shards' files."""
        shards = [(name, *_stamp(layout.SHARDS / name)) for name in sorted(set(rows.table["shard"].to_pylist()))]
        whole = json.dumps([dict(depends), batch_size, shards], sort_keys=True)
        digest = xxhash.xxh3_64(whole.encode())
        for column in ("id", "shard", "offset", "size"):
            digest.update(json.dumps(rows.table[column].to_pylist()).encode())
        return cls(FOLDER / purpose / digest.hexdigest(), len(rows), channels, batch_size)

    def __len__(self) -> int:
        return -(-self.images // self._size)

    def batches(self, block: int) -> range:
        """The numbers of a block's batches."""
        size = self._size // self.batch_size
        return range(block * size, min((block + 1) * size, -(-self.images // self.batch_size)))

    def read(self, block: int) -> Tensor | None:
        """float16 (rows, channels); None where it is not remembered, or damaged."""
        try:
            data = self._path(block).read_bytes()
        except OSError:  # what cannot be read is made again
            return None
        content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if xxhash.xxh3_128_digest(content) != digest:
            return None
        return torch.from_numpy(np.frombuffer(content, np.float16).reshape(-1, self.channels).copy())

    def write(self, block: int, features: Tensor) -> None:
        """Remember the features of a block."""
        content = features.numpy().tobytes()
        unfinished = self._path(block).with_suffix(".part")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content + xxhash.xxh3_128_digest(content))
        unfinished.replace(self._path(block))

    @property
    def _size(self) -> int:
        return self.batch_size * max(1, BLOCK // self.batch_size)

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:06d}.f16"


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change; zeros where there is no such file, which is then said when it is read."""
    try:
        return path.stat().st_size, path.stat().st_mtime_ns
    except OSError:
        return 0, 0


def forget_features(purpose: str, but: Sequence[FeatureBlocks] = ()) -> None:
    """Remove what is remembered for a purpose, but some."""
    for folder in (FOLDER / purpose).glob("*"):
        if folder not in [blocks.folder for blocks in but]:
            shutil.rmtree(folder, ignore_errors=True)
