"""Peak memory of the stages that read the whole manifest, each in a process of its own, on generated manifests.

    python benchmarks/stage_memory.py [--rows 10000 1000000] [--stages split validate describe rows] [--json OUT]

The manifest has what an assembly of 20 sources would write: ids, places, hashes, footprints for half of the rows. No
image lies behind it, so `describe` is measured without its mosaics. "start" is the process after its imports and
parameters, before it reads anything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gfm import layout
from gfm.geopile.manifest import SCHEMA, wkb
from gfm.imagery.footprint import Bounds
from gfm.params import Params
from interleaved import REPOSITORY, header, write_json
from made_collection import params

SOURCES = 20
LABELS = 40
HELD_OUT = 2000
AT_ONCE = 50_000  # rows written together
STAGES = ("split", "validate", "describe", "rows")


def sources() -> dict[str, dict[str, object]]:
    """The declared ones; the first half is labelled, the second has footprints."""
    plain = {"licence": "CC0", "imagery": {"bands": {"R": None, "G": None, "B": None}}}
    return {
        f"source-{number:02d}": {
            "format": "class-folders" if number < SOURCES // 2 else "scenes",
            "root": f"source-{number:02d}",
            **plain,
        }
        for number in range(SOURCES)
    }


def chosen() -> Params:
    """Parameters of the generated manifest."""
    return params(sources(), Path("raw"))


def write_manifest(rows: int) -> None:
    """data/geopile and one task's index, as assemble and index leave them, without images."""
    shards = layout.COLLECTION / "shards"
    shards.mkdir(parents=True)
    dice = np.random.default_rng(0)
    with pq.ParquetWriter(layout.MANIFEST, SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, AT_ONCE):
            writer.write_table(part(np.arange(start, min(start + AT_ONCE, rows)), rows, dice))
    for shard in range(rows // 4000 + 1):
        with (shards / f"{shard:05d}.tar").open("wb") as file:
            file.truncate(4000 * 16384 + 1024)
    each = rows // SOURCES
    counts = {"listed": each, "met": each, "quarantined": 0, "images": each, "kept": each, "dropped": {}}
    summary = {
        "images": rows,
        "bands": ["R", "G", "B"],
        "tile_px": 256,
        "bytes": rows * 15000,
        "shards": rows // 4000 + 1,
        "sources": dict.fromkeys(sources(), counts),
    }
    (layout.COLLECTION / "summary.json").write_text(json.dumps(summary))
    (layout.COLLECTION / "quarantine.csv").write_text("source,file,reason\n")
    (layout.COLLECTION / "dropped.csv").write_text("source,id,reason,kept\n")
    write_task(dice)


def part(numbers: np.ndarray, rows: int, dice: np.random.Generator) -> pa.Table:
    """Rows of these numbers, by source, as the manifest is sorted."""
    owner = numbers * SOURCES // rows
    placed = owner >= SOURCES // 2
    west, south = 10 + numbers % 3000 * 0.01, 40 + numbers // 3000 * 0.01
    bounds = [Bounds(w, s, w + 0.008, s + 0.008) if p else None for w, s, p in zip(west, south, placed, strict=True)]
    ids = [f"source-{o:02d}/class-{n % LABELS:02d}/image-{n:08d}.jpg" for o, n in zip(owner, numbers, strict=True)]
    columns = {
        "id": ids,
        "source": [f"source-{o:02d}" for o in owner],
        "place": [f"ground-2km-{n // 7}" if p else i for n, p, i in zip(numbers, placed, ids, strict=True)],
        "file": ids,
        "label": [None if p else f"class-{n % LABELS:02d}" for n, p in zip(numbers, placed, strict=True)],
        "shard": [f"{n // 4000:05d}.tar" for n in numbers],
        "offset": numbers % 4000 * 16384 + 512,
        "size": np.full(len(numbers), 15000),
        "width": np.full(len(numbers), 256, np.int32),
        "height": np.full(len(numbers), 256, np.int32),
        "gsd_m": np.full(len(numbers), 1.0),
        "crs": ["EPSG:32633" if p else None for p in placed],
        "date": ["2020-06-01" if p else None for p in placed],
        "licence": ["CC0"] * len(numbers),
        **{name: dice.uniform(4, 7, len(numbers)).round(4) for name in ("entropy_bits", "contrast", "sharpness")},
        "nodata_share": np.zeros(len(numbers)),
        "pixel_hash": [dice.bytes(16).hex() for _ in numbers],
        "dhash": [dice.bytes(8).hex() for _ in numbers],
        **{side: [getattr(b, side) if b else None for b in bounds] for side in Bounds._fields},
        "geometry": [wkb(b) if b else None for b in bounds],
    }
    extra = {field.name: [None] * len(numbers) for field in SCHEMA if field.name not in columns}
    return pa.table({**columns, **extra}, schema=SCHEMA)


def write_task(dice: np.random.Generator) -> None:
    """The index of a task with as many held-out samples as a large benchmark has."""
    layout.TASKS.mkdir(parents=True)
    names = [f"sample-{number:05d}" for number in range(HELD_OUT)]
    table = {
        "id": names,
        "place": names,
        "split": ["test"] * HELD_OUT,
        "inputs": [json.dumps([[f"t/{name}"]]) for name in names],
        "target": pa.nulls(HELD_OUT, pa.string()),
        "labels": [json.dumps(["land"])] * HELD_OUT,
        **dict.fromkeys(("x", "y"), np.zeros(HELD_OUT, np.int64)),
        **dict.fromkeys(("width", "height"), np.full(HELD_OUT, 64)),
        "pixel_hashes": [json.dumps([dice.bytes(16).hex()]) for _ in names],
        "dhashes": [json.dumps([[dice.bytes(8).hex() for _ in range(8)]]) for _ in names],
        "content": [dice.bytes(16).hex() for _ in names],
        **dict.fromkeys(Bounds._fields, pa.nulls(HELD_OUT, pa.float64())),
    }
    pq.write_table(pa.table(table), layout.task_index("t"))
    none = {"train": 0, "val": 0, "pairs": []}
    meta = {"kind": "classification", "classes": ["land"], "counts": {"test": HELD_OUT}}
    layout.task_index("t").with_suffix(".json").write_text(
        json.dumps({**meta, "same_ground": none, "near_duplicates": none})
    )


def run_stage(stage: str) -> None:
    """Run one stage here and print its start, peak (MB) and seconds; what it says itself is left out."""
    found = chosen()
    if stage == "split":
        from gfm.geopile.splits import split as work
    elif stage == "validate":
        from gfm.errors import DataError
        from gfm.geopile.validate import validate

        def work(params: Params) -> None:
            with contextlib.suppress(DataError):  # a finding about generated rows ends no measurement
                validate(params)

    elif stage == "describe":
        from gfm.evaluation import describe as described

        described._write_mosaics = lambda *_: {}
        work = described.describe
    else:
        from gfm.pretraining.collection import read_rows

        def work(params: Params) -> None:
            rows = read_rows("train")
            rows.licences()
            rows.labels()

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        work(found)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"start_mb": start, "peak_mb": peak, "seconds": seconds}))


def main() -> None:
    """Measure every stage at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--run", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_stage(options.run)
        return
    json_file = options.json.absolute() if options.json else None
    print(header("pyarrow", "pandas", "numpy") + "\n")
    print("| stage | rows | start, MB | peak, MB | seconds |\n|---|---|---|---|---|")
    results = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="gfm-memory-") as folder, contextlib.chdir(folder):
            write_manifest(rows)
            Path("expectations").symlink_to(REPOSITORY / "expectations")
            stages = options.stages if "split" in options.stages else ["split", *options.stages]  # others read it
            for stage in stages:
                done = subprocess.run([sys.executable, __file__, "--run", stage], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{stage} failed:\n{done.stderr[-3000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                results.append({"stage": stage, "rows": rows, **found})
                numbers = f"{found['start_mb']:,.0f} | {found['peak_mb']:,.0f} | {found['seconds']:.1f}"
                print(f"| {stage} | {rows:,} | {numbers} |", flush=True)
    write_json(json_file, results)


if __name__ == "__main__":
    main()
