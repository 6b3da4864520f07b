"""The collection's images decoded once, as bytes on disk that every training maps into memory and cuts its crops from.

`checkpoints/decoded-images/KEY/BLOCK.bin`: the pixels of so many images of the manifest, one after another. KEY names
the manifest and the ceiling of the images' size; where an image lies follows from the manifest's widths and heights,
so there is no index. A kill loses the block in hand.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from gfm import layout
from gfm.errors import DataError, GfmError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.imagery.store_size import fitted, fitted_size
from gfm.output_file import write_whole
from gfm.pretraining.collection import Rows
from gfm.pretraining.data import SHARDS
from gfm.pretraining.trainer import CHECKPOINTS, Processes
from gfm.progress import say, track
from gfm.tracking.provenance import data_version

FOLDER = CHECKPOINTS / "decoded-images"
KEY_FILE = "key.json"
BLOCK = 4096  # images a file
SPARE_BYTES = 1_000_000_000  # of the disk, left for checkpoints and logs

Image = NDArray[np.uint8]


class DecodedImages:
    """Decoded images by number: uint8 (H, W, C), mapped where they lie, so that a crop reads only its own pixels.

    Blocks are opened on first use and once a process, so that workers share the pages and not the file objects.
    """

    def __init__(
        self, folder: Path, *, bands: int, px: int | None, sizes: NDArray[np.int32], numbers: NDArray[np.int64]
    ) -> None:
        self.folder, self.bands, self.px = folder, bands, px
        self.sizes, self.numbers = sizes, numbers  # (height, width) of every image, and those that rows stand for
        self.starts = _starts(sizes, bands)
        self._blocks: dict[int, Image] = {}

    def image(self, row: int) -> Image:
        """The image of one row; a private copy of a page is made where someone writes to it."""
        number = int(self.numbers[row])
        block = self._blocks.get(number // BLOCK)
        if block is None:
            block = self._blocks[number // BLOCK] = self._open(number // BLOCK)
        height, width = self.sizes[number].tolist()
        start = int(self.starts[number])
        return block[start : start + height * width * self.bands].reshape(height, width, self.bands)

    def _open(self, number: int) -> Image:
        path = _path(self.folder, number)
        wanted = _block_bytes(self.sizes, self.bands, number)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != wanted:
                    raise GfmError(f"{path}: has not the {wanted} bytes of its images; remove it, and it is made again")
                return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
        except OSError as error:
            raise GfmError(f"{path}: {error.strerror}; start the training again, and it is made again") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": {}}


@dataclass(frozen=True, slots=True)
class DecodedCache:
    """The decoded images of the whole collection, made where they are missing.

    Args:
        px: ceiling of the shorter side; larger images are resized once. None: as they are stored.
        key: of the parameter, for errors.
    """

    bands: int
    px: int | None
    key: str
    ids: pa.ChunkedArray
    places: pa.Table  # shard, offset, size
    sizes: NDArray[np.int32]  # (N, 2), height and width in the cache
    folder: Path
    belongs: dict[str, Any]  # which manifest's images these are

    @classmethod
    def of_collection(cls, bands: int, px: int | None, key: str, manifest: Path = layout.MANIFEST) -> DecodedCache:
        """The cache of a manifest as it is now; nothing is written."""
        table = pq.read_table(manifest, columns=["id", "shard", "offset", "size", "height", "width"])
        stored = np.column_stack([table["height"].to_numpy(), table["width"].to_numpy()])
        belongs = _belongs(manifest)
        text = json.dumps({"belongs": belongs, "px": px, "bands": bands}, sort_keys=True)
        folder = FOLDER / xxhash.xxh3_64_hexdigest(text.encode())
        sizes = np.array([fitted_size(int(h), int(w), px) for h, w in stored], np.int32).reshape(-1, 2)
        places = table.select(["shard", "offset", "size"])
        return cls(bands, px, key, table["id"], places, sizes, folder, belongs)

    @property
    def bytes(self) -> int:
        """Of all images together."""
        return int(_bytes(self.sizes, self.bands).sum())

    def of(self, rows: Rows) -> DecodedImages:
        """The images of `rows`."""
        numbers = pc.index_in(rows.table["id"], value_set=self.ids)
        if numbers.null_count:
            raise DataError(f"{self.key}: {numbers.null_count} of its images are not in the cache's manifest")
        places = numbers.to_numpy().astype(np.int64)
        return DecodedImages(self.folder, bands=self.bands, px=self.px, sizes=self.sizes, numbers=places)

    def fill(self, processes: Processes, *, threads: int) -> None:
        """Decode what is missing. Several processes share the blocks, each with so many threads.

        GfmError before anything is written where the disk has not the room.
        """
        blocks = range(-(-len(self.sizes) // BLOCK))
        missing = [block for block in blocks if not _path(self.folder, block).exists()]
        if not missing:
            return
        if processes.rank == 0:
            _remove_stale()
            self._check_room(missing)
            write_whole(self.folder / KEY_FILE, json.dumps({"belongs": self.belongs}))
        self.folder.mkdir(parents=True, exist_ok=True)
        own = missing[processes.rank :: processes.count]
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            # Then all, to wait for the blocks of others and to make those of others that died.
            for block in track(list(dict.fromkeys([*own, *missing])), "decoding images", unit="blocks"):
                with _only_writer(_path(self.folder, block)) as unfinished:
                    if unfinished is not None:
                        self._write(unfinished, block, pool)

    def _check_room(self, missing: list[int]) -> None:
        wanted = sum(_block_bytes(self.sizes, self.bands, block) for block in missing)
        FOLDER.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(FOLDER).free
        said = f"{self.bytes / 1e9:.2f} GB for {len(self.sizes)} decoded images"
        if wanted + SPARE_BYTES > free:
            smaller = "lower" if self.px else "set"
            raise GfmError(
                f"{self.key}.decoded_cache: {self.folder} would take {said}, and its disk has {free / 1e9:.2f} GB "
                f"free; {smaller} {self.key}.decoded_px, or make room"
            )
        say(f"{self.folder}: {said}, {wanted / 1e9:.2f} GB of it to be made; {free / 1e9:.2f} GB are free")

    def _write(self, path: Path, block: int, pool: ThreadPoolExecutor) -> None:
        numbers = range(block * BLOCK, min((block + 1) * BLOCK, len(self.sizes)))
        starts = _starts(self.sizes, self.bands)
        reader = ShardReader(SHARDS)
        with path.open("r+b") as file:
            try:
                # Real room, not a hole: writing to a mapped file on a full disk would kill the process.
                os.posix_fallocate(file.fileno(), 0, _block_bytes(self.sizes, self.bands, block))
            except OSError as error:
                raise GfmError(f"{path}: {error.strerror}; lower {self.key}.decoded_px, or make room") from None
            mapped = mmap.mmap(file.fileno(), 0)
            pixels = np.frombuffer(mapped, np.uint8)

            def decode(number: int) -> None:
                name = self.ids[number].as_py()
                place = (self.places[column][number].as_py() for column in self.places.column_names)
                image = fitted(decode_image(reader.bytes(*place), name), self.px)
                wanted = (*map(int, self.sizes[number]), self.bands)
                if image.shape != wanted:
                    raise DataError(
                        f"{name}: is {image.shape}, but the manifest and geopile.bands say {wanted}; "
                        "run `gfm assemble` again"
                    )
                pixels[starts[number] : starts[number] + image.size] = image.ravel()

            for _ in pool.map(decode, numbers):
                pass
            mapped.flush()


def _path(folder: Path, block: int) -> Path:
    return folder / f"{block:06d}.bin"


def _bytes(sizes: NDArray[np.int32], bands: int) -> NDArray[np.int64]:
    return np.asarray(sizes.astype(np.int64).prod(axis=1) * bands)


def _starts(sizes: NDArray[np.int32], bands: int) -> NDArray[np.int64]:
    """Where each image begins in its block."""
    ends = _bytes(sizes, bands).cumsum()
    begins = np.concatenate([[0], ends[:-1]])
    return np.asarray(begins - begins[np.arange(len(sizes)) // BLOCK * BLOCK]) if len(sizes) else begins


def _block_bytes(sizes: NDArray[np.int32], bands: int, block: int) -> int:
    return int(_bytes(sizes[block * BLOCK : (block + 1) * BLOCK], bands).sum())


@contextmanager
def _only_writer(path: Path) -> Iterator[Path | None]:
    """The file to write, which becomes `path` at the end; None where another process has made it meanwhile."""
    unfinished = path.with_suffix(".new")
    with unfinished.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            unfinished.unlink(missing_ok=True)
            yield None
            return
        yield unfinished
        unfinished.replace(path)


def _belongs(manifest: Path) -> dict[str, Any]:
    return {"manifest": data_version(manifest)["manifest"]}


def _remove_stale() -> None:
    """Remove images of manifests that are no more; those of other ceilings stay, and of other sources left out."""
    current = [_belongs(manifest) for manifest in (layout.MANIFEST, *layout.manifests_without())]
    for key_file in FOLDER.glob(f"*/{KEY_FILE}"):
        if json.loads(key_file.read_text(encoding="utf-8"))["belongs"] not in current:
            shutil.rmtree(key_file.parent)
