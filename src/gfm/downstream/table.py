"""A task's index on disk: `TASK.parquet`, one row a sample, and `TASK.json`, what the samples are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfm.downstream.sample import Sample
from gfm.downstream.split import PARTS, Part
from gfm.errors import DataError
from gfm.imagery.footprint import Bounds
from gfm.layout import task_index

TARGET_COLUMNS = ("target_x", "target_y", "target_width", "target_height")


@dataclass(frozen=True, slots=True)
class Row:
    """A sample with its part and its fingerprints."""

    sample: Sample
    split: Part
    # Per date, of the chip in the collection's bands, and of a target that is a picture too:
    pixel_hashes: tuple[str, ...]
    dhashes: tuple[tuple[str, ...], ...]  # of its eight flips and turns
    content: str  # hash of the bytes of the files behind it


@dataclass(frozen=True, slots=True)
class TaskIndex:
    """What `gfm index` found of one task."""

    kind: str
    classes: list[str]
    rows: list[Row]
    quarantined: int
    # Of targets that hold numbers, by part: pixels, mean, std, min, max; else empty.
    numbers: dict[str, dict[str, float]]
    collection_um: dict[str, float | None]  # wavelength of each of the collection's bands
    digest: str  # hash of the table's bytes: the data version that scores belong to

    def part(self, part: Part) -> list[Sample]:
        """The samples of one part, in the order of their ids."""
        return [row.sample for row in self.rows if row.split == part]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table, sorted by id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted(rows, key=lambda row: row.sample.id)
    samples = [row.sample for row in rows]
    columns: dict[str, Any] = {
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "place": pa.array([sample.place for sample in samples], pa.string()),
        "split": pa.array([row.split for row in rows], pa.string()),
        "inputs": pa.array([_text(sample.inputs) for sample in samples], pa.string()),
        "target": pa.array([sample.target for sample in samples], pa.string()),
        "labels": pa.array([_text(sample.labels) for sample in samples], pa.string()),
    }
    for position, name in enumerate(("x", "y", "width", "height")):
        columns[name] = pa.array([sample.window[position] for sample in samples], pa.int32())
    for position, name in enumerate(("west", "south", "east", "north")):
        values = [None if sample.bounds is None else sample.bounds[position] for sample in samples]
        columns[name] = pa.array(values, pa.float64())
    if any(sample.target_window for sample in samples):  # most targets lie on the grid of their image
        for position, name in enumerate(TARGET_COLUMNS):
            numbers = [None if sample.target_window is None else sample.target_window[position] for sample in samples]
            columns[name] = pa.array(numbers, pa.int32())
    columns["pixel_hashes"] = pa.array([_text(row.pixel_hashes) for row in rows], pa.string())
    columns["dhashes"] = pa.array([_text(row.dhashes) for row in rows], pa.string())
    columns["content"] = pa.array([row.content for row in rows], pa.string())
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_index(task: str) -> TaskIndex:
    """Read a task's index; DataError where `gfm index` has not run."""
    import pyarrow.parquet as pq
    import xxhash

    path = task_index(task)
    try:
        digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
        meta = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        records = pq.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; run `gfm index` first") from None
    if "collection_um" not in meta:
        raise DataError(f"{path.with_suffix('.json')}: made before it held wavelengths; run `gfm index` again")
    rows = [_row(record) for record in records]
    numbers, collection_um = meta.get("numbers", {}), meta["collection_um"]
    return TaskIndex(meta["kind"], meta["classes"], rows, meta["quarantined"], numbers, collection_um, digest)


def _row(record: dict[str, Any]) -> Row:
    west = record["west"]
    sample = Sample(
        id=record["id"],
        place=record["place"],
        inputs=tuple(tuple(files) for files in json.loads(record["inputs"])),
        target=record["target"],
        labels=tuple(json.loads(record["labels"])),
        window=(record["x"], record["y"], record["width"], record["height"]),
        bounds=None if west is None else Bounds(west, record["south"], record["east"], record["north"]),
        target_window=None if record.get("target_x") is None else tuple(record[name] for name in TARGET_COLUMNS),
    )
    part = next(part for part in PARTS if part == record["split"])
    dhashes = tuple(tuple(variants) for variants in json.loads(record["dhashes"]))
    return Row(sample, part, tuple(json.loads(record["pixel_hashes"])), dhashes, record["content"])


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
