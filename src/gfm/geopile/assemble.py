"""Build the pretraining collection: sources -> tiles -> quality -> duplicates -> shards and manifest.

Two passes over the files. The first decodes, judges and hashes; only rows of the manifest stay in memory. Then
duplicates are found among all rows, and the second pass reads the kept images again and writes them in the order of
their ids. Reading twice costs less than holding or spooling every encoded image (tens of gigabytes at full scale),
and since results are taken in order, the bytes do not depend on the number of processes.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from gfm.geopile.duplicates import find_duplicates
from gfm.geopile.manifest import write_manifest
from gfm.geopile.parallel import OrderedMap, ordered_map
from gfm.geopile.quarantine import Dropped, Refusal, write_dropped, write_quarantine
from gfm.geopile.row import Place, Row
from gfm.geopile.shards import ShardWriter
from gfm.geopile.sources import cuts_tiles, list_files, tile_names
from gfm.geopile.tiles import Job, encode_rows, inspect
from gfm.imagery.raster import ImageError
from gfm.layout import COLLECTION
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say, track

# Starting processes takes seconds (770 files on a busy machine: 15 s alone, 29 s with four processes).
FEW_FILES = 2000
FEW_BYTES = 256e6

_FILES_A_BATCH = 16
_ROWS_A_BATCH = 32


def assemble(params: Params) -> None:
    """Write the collection to `gfm.layout.COLLECTION`, whole or not at all, and print what became of each source.

    Raises DataError when a source's folder is missing or holds nothing that matches; a single bad file is quarantined.
    """
    start = time.monotonic()
    jobs, listed = _plan(params)
    with new_folder(COLLECTION) as folder, ordered_map(_workers(params, jobs)) as map_in_order:
        rows, dropped, refusals = _inspect_all(params, jobs, map_in_order)
        rows.sort(key=lambda row: row.id)
        twice = find_duplicates(rows, list(params.geopile.sources), params.geopile.near_duplicate_bits)
        for number, duplicate in twice.items():
            row = rows[number]
            dropped.append(Dropped(row.source, row.id, duplicate.reason, rows[duplicate.kept].id))
        kept = [row for number, row in enumerate(rows) if number not in twice]
        places = _write_shards(params, folder / "shards", kept, map_in_order)
        licences = {name: source.licence for name, source in params.geopile.sources.items()}
        write_manifest(folder / "manifest.parquet", kept, places, licences)
        write_quarantine(folder / "quarantine.csv", refusals)
        write_dropped(folder / "dropped.csv", dropped)
        summary = _summary(params, listed, Counter(job.source for job in jobs), kept, dropped, refusals)
        summary |= {"shards": len({place.shard for place in places}), "bytes": sum(place.size for place in places)}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    _print(summary, time.monotonic() - start)


def _plan(params: Params) -> tuple[list[Job], dict[str, int]]:
    """The files to read, and how many each source lists.

    A source with a limit keeps the images whose ids hash lowest; they are chosen before any pixel is read, so that a
    limit saves time, and quality and duplicates may leave fewer.
    """
    jobs: list[Job] = []
    listed = {}
    for name, source in params.geopile.sources.items():
        root = params.paths.raw.path / source.root
        files = list_files(name, source, root)
        listed[name] = len(files)
        if source.limit is None:
            jobs += [Job(name, file) for file in files]
            continue
        ranked: list[tuple[int, str, str]] = []
        for file in files:
            try:
                images = tile_names(source, root, file, params.geopile.tile_px)
            except ImageError:
                jobs.append(Job(name, file))  # the first pass meets the same error and quarantines the file
                continue
            ranked += [(xxhash.xxh3_64_intdigest(_bytes_of(f"{name}/{image}")), image, file) for image in images]
        chosen: dict[str, set[str]] = defaultdict(set)
        for _, image, file in heapq.nsmallest(source.limit, ranked):
            chosen[file].add(image)
        jobs += [Job(name, file, frozenset(chosen[file])) for file in sorted(chosen)]
    return jobs, listed


def _workers(params: Params, jobs: Sequence[Job]) -> int:
    if len(jobs) < FEW_FILES and sum(_size(params, job) for job in jobs) < FEW_BYTES:
        return 1
    return params.geopile.workers or os.cpu_count() or 1


def _size(params: Params, job: Job) -> int:
    path = params.paths.raw.path / params.geopile.sources[job.source].root / job.file
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _inspect_all(
    params: Params, jobs: Sequence[Job], map_in_order: OrderedMap
) -> tuple[list[Row], list[Dropped], list[Refusal]]:
    rows: list[Row] = []
    dropped: list[Dropped] = []
    refusals: list[Refusal] = []
    batches = list(_batches(params, jobs))
    found = (one for batch in map_in_order(partial(inspect, params), batches) for one in batch)
    for findings in track(found, "reading", total=len(jobs), unit="files"):
        rows += findings.rows
        dropped += findings.dropped
        if findings.refusal is not None:
            refusals.append(findings.refusal)
    return rows, dropped, refusals


def _batches(params: Params, jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Scenes one by one, images a few at a time: a worker's answer should neither be huge nor tiny."""
    batch: list[Job] = []
    for job in jobs:
        if batch and (len(batch) == _FILES_A_BATCH or cuts_tiles(params.geopile.sources[job.source])):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _write_shards(params: Params, folder: Path, rows: Sequence[Row], map_in_order: OrderedMap) -> list[Place]:
    places = []
    batches = [rows[first : first + _ROWS_A_BATCH] for first in range(0, len(rows), _ROWS_A_BATCH)]
    encoded = (one for batch in map_in_order(partial(encode_rows, params), batches) for one in batch)
    with ShardWriter(folder, params.geopile.shard_mb) as writer:
        for row, image in zip(rows, track(encoded, "writing", total=len(rows), unit="images"), strict=True):
            places.append(writer.add(row.id, image.data, image.suffix))
    return places


def _summary(
    params: Params,
    listed: dict[str, int],
    met: Counter[str],
    kept: Sequence[Row],
    dropped: Sequence[Dropped],
    refusals: Sequence[Refusal],
) -> dict[str, Any]:
    """Counts by source: `listed`, `met` (read) and `quarantined` are of files, the rest are of images."""
    bad = Counter(refusal.source for refusal in refusals)
    good = Counter(row.source for row in kept)
    sources = {}
    for name in params.geopile.sources:
        reasons = Counter(drop.reason for drop in dropped if drop.source == name)
        sources[name] = {
            "listed": listed[name],
            "met": met[name],
            "quarantined": bad[name],
            "images": good[name] + reasons.total(),
            "kept": good[name],
            "dropped": dict(sorted(reasons.items())),
        }
    return {
        "bands": params.geopile.bands,
        "tile_px": params.geopile.tile_px,
        "images": len(kept),
        "sources": sources,
    }


def _print(summary: dict[str, Any], seconds: float) -> None:
    names = ["source", "files met", "quarantined", "images", "dropped", "kept", "why dropped"]
    lines = [names]
    for name, counts in summary["sources"].items():
        why = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        numbers = [counts[key] for key in ("met", "quarantined", "images")]
        numbers += [sum(counts["dropped"].values()), counts["kept"]]
        lines.append([name, *map(str, numbers), why])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for first, *numbers, why in lines:
        middle = "  ".join(text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True))
        say(f"{first.ljust(widths[0])}  {middle}  {why}".rstrip())
    say(
        f"{summary['images']} images, {summary['bytes'] / 1e6:.1f} MB in {summary['shards']} shards, "
        f"{seconds:.1f} s -> {COLLECTION}"
    )
    if any(counts["quarantined"] for counts in summary["sources"].values()):
        say(f"quarantined files and their reasons: {COLLECTION / 'quarantine.csv'}")


def _bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # a file's name may be any bytes
