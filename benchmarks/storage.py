"""The collection's form of storage against others: reading at random, in order, and by a filter of the manifest.

    taskset -c 3 python benchmarks/storage.py [--images 4000] [--rounds 5] [--px 256] [--json OUT]

The same JPEGs as tar shards with offsets in the manifest (ours), as files in class folders, as webdataset reads the
same tars, in LMDB, and as Parquet with a column of bytes. A read gives the image's encoded bytes; nothing is decoded.
"By filter" reads the images of one class of twenty. Rounds alternate; ratios are of processor time, the page cache is
warm. webdataset reads in order only: it is given the whole for every question.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import webdataset

from gfm import layout
from gfm.imagery.shard_reader import ShardReader
from interleaved import Way, arguments, header, run, summary, table, write_json
from made_collection import collect
from made_images import CLASSES, write_class_folders

GROUP = 256  # rows of a Parquet row group
CLASS = "class-07"
SHARDS = layout.COLLECTION / "shards"
QUESTIONS = ("at random", "in order", f"by filter, 1 of {CLASSES} classes")

Read = Callable[[], int]


def shards(order: np.ndarray) -> tuple[Read, Read, Read]:
    """Ours: a read of so many bytes at an offset that the manifest says."""
    manifest = pq.read_table(layout.MANIFEST, columns=["label", "shard", "offset", "size"])
    reader = ShardReader(SHARDS)

    def read(rows: pa.Table) -> int:
        places = zip(*(rows[name].to_pylist() for name in ("shard", "offset", "size")), strict=True)
        return sum(1 for place in places if reader.bytes(*place))

    return (
        lambda: read(manifest.take(order)),
        lambda: read(manifest),
        lambda: read(manifest.filter(pc.equal(manifest["label"], CLASS))),
    )


def files(order: np.ndarray) -> tuple[Read, Read, Read]:
    """A file an image."""
    paths = sorted(Path("raw/photos").glob("*/*.jpg"))

    def read(some: Iterator[Path]) -> int:
        return sum(1 for path in some if path.read_bytes())

    return (
        lambda: read(paths[number] for number in order),
        lambda: read(iter(paths)),
        lambda: read(iter(sorted(Path("raw/photos", CLASS).iterdir()))),
    )


def tars(order: np.ndarray) -> tuple[None, Read, None]:
    """webdataset over our own shards."""
    urls = [str(path) for path in sorted(SHARDS.glob("*.tar"))]
    return None, lambda: sum(1 for sample in webdataset.WebDataset(urls, shardshuffle=False) if sample["jpg"]), None


def database(order: np.ndarray) -> tuple[Read, Read, Read]:
    """LMDB, a key an image; its own keys are the only index, so that a filter asks the manifest."""
    ids = pq.read_table(layout.MANIFEST, columns=["id", "label"])
    paths = sorted(Path("raw/photos").glob("*/*.jpg"))
    environment = lmdb.open("lmdb", map_size=1 << 36)
    with environment.begin(write=True) as write:
        for path in paths:
            write.put(f"photos/{path.parent.name}/{path.name}".encode(), path.read_bytes())

    def read(rows: pa.Table) -> int:
        with environment.begin() as reading:
            return sum(1 for name in rows["id"].to_pylist() if reading.get(name.encode()))

    def walk() -> int:
        with environment.begin() as reading:
            return sum(1 for _, data in reading.cursor() if data)

    return (
        lambda: read(ids.take(order)),
        walk,
        lambda: read(ids.filter(pc.equal(ids["label"], CLASS))),
    )


def parquet(order: np.ndarray) -> tuple[Read, Read, Read]:
    """Parquet with the images in a column, uncompressed, in groups of rows; a random read is of a whole group."""
    paths = sorted(Path("raw/photos").glob("*/*.jpg"))
    columns = {"label": [path.parent.name for path in paths], "image": [path.read_bytes() for path in paths]}
    pq.write_table(pa.table(columns), "images.parquet", compression="none", row_group_size=GROUP, use_dictionary=False)
    few = order[:: max(len(order) // 20, 1)]  # one costs as much as a group

    def read_one(number: int) -> bytes:
        with pq.ParquetFile("images.parquet") as file:
            group = file.read_row_group(number // GROUP, columns=["image"])
        return bytes(group["image"][number % GROUP].as_py())

    def walk() -> int:
        with pq.ParquetFile("images.parquet") as file:
            return sum(1 for batch in file.iter_batches(columns=["image"]) for image in batch["image"] if image.as_py())

    def by_filter() -> int:
        found = pq.read_table("images.parquet", filters=[("label", "==", CLASS)], columns=["image"])
        return sum(1 for image in found["image"] if image.as_py())

    return lambda: sum(1 for number in few if read_one(int(number))), walk, by_filter


def size(paths: Iterator[Path]) -> float:
    """MB on disk."""
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file()) / 1e6


def main() -> None:
    """Measure and print a table a question, and the sizes."""
    parser = arguments(__doc__, images=4000, rounds=5)
    parser.add_argument("--px", type=int, default=256, help="side of the images (default 256)")
    options = parser.parse_args()
    json_file = options.json.absolute() if options.json else None
    print(header("pyarrow", "lmdb", "webdataset"))
    with tempfile.TemporaryDirectory(prefix="gfm-storage-") as folder, contextlib.chdir(folder):
        write_class_folders(Path("raw/photos"), options.images, options.px)
        collect(Path("raw"))
        order = np.random.default_rng(0).permutation(options.images)
        forms = {
            "files in folders": files(order),
            "tar shards and manifest (ours)": shards(order),
            "the same tars by webdataset": tars(order),
            "LMDB": database(order),
            f"Parquet, {GROUP} images a group": parquet(order),
        }
        results: dict[str, object] = {}
        for number, question in enumerate(QUESTIONS):
            asked = [Way(name, partial(reads[number])) for name, reads in forms.items() if reads[number] is not None]
            run(asked, options.rounds)
            results[question] = summary(asked)
            print("\n" + table(question, summary(asked)), flush=True)
        sizes = {
            "files in folders": size(Path("raw").rglob("*")),
            "tar shards and manifest (ours)": size(layout.COLLECTION.rglob("*")),
            "LMDB": size(Path("lmdb").iterdir()),
            "Parquet": size(iter([Path("images.parquet")])),
        }
        results["MB on disk"] = sizes
        print(f"\nMB on disk, {options.images} images: " + ", ".join(f"{k} {v:.1f}" for k, v in sizes.items()))
    write_json(json_file, results)


if __name__ == "__main__":
    main()
