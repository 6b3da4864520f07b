"""Build the pretraining collection: sources -> tiles -> quality -> duplicates -> shards and manifest.

Two passes over the files. The first decodes, judges and hashes; only rows of the manifest stay in memory. Then
duplicates are found among all rows, and the second pass reads the kept images again and writes them in the order of
their ids (those of one archive in the archive's own order: a compressed one gives them in no other). Reading twice
costs less than holding or spooling every encoded image (tens of gigabytes at full scale), and since results are taken
in order, the bytes do not depend on the number of processes.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import xxhash

from gfm.errors import DataError
from gfm.geopile.cluster import cluster_map, on_shared_paths
from gfm.geopile.duplicates import find_duplicates
from gfm.geopile.manifest import write_manifest
from gfm.geopile.parallel import BATCH_BYTES, OrderedMap, batches, ordered_map
from gfm.geopile.quarantine import Dropped, Refusal, write_dropped, write_quarantine
from gfm.geopile.row import Place, Row
from gfm.geopile.shards import ShardWriter
from gfm.geopile.sources import Member, cuts_tiles, is_archive, list_files, read_members, tile_names
from gfm.geopile.sources.listing import PICTURES
from gfm.geopile.tiles import Job, Kept, encode_images, file_of, inspect, tile_name_of
from gfm.imagery.raster import ImageError
from gfm.layout import COLLECTION
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say, track

# Starting processes takes seconds (770 files on a busy machine: 15 s alone, 29 s with four processes).
FEW_FILES = 2000
FEW_BYTES = 256e6

_FILES_A_BATCH = 16
_IMAGES_A_BATCH = 32


def assemble(params: Params) -> None:
    """Write the collection to `gfm.layout.COLLECTION`, whole or not at all, and print what became of each source.

    Raises DataError when a source's folder is missing or holds nothing that matches; a single bad file is quarantined.
    """
    start = time.monotonic()
    params = on_shared_paths(params)
    jobs, listed = _plan(params)
    with new_folder(COLLECTION) as folder, _map(params, jobs) as map_in_order:
        found = _inspect_all(params, jobs, map_in_order)
        rows = sorted(found.rows, key=lambda row: row.id)
        twice = find_duplicates(rows, list(params.geopile.sources), params.geopile.near_duplicate_bits)
        for number, duplicate in twice.items():
            row = rows[number]
            found.dropped.append(Dropped(row.source, row.id, duplicate.reason, rows[duplicate.kept].id))
        kept = [row for number, row in enumerate(rows) if number not in twice]
        places = _write_shards(params, folder / "shards", kept, map_in_order)
        licences = {name: source.licence for name, source in params.geopile.sources.items()}
        write_manifest(folder / "manifest.parquet", kept, places, licences)
        write_quarantine(folder / "quarantine.csv", found.refusals)
        write_dropped(folder / "dropped.csv", found.dropped)
        summary = _summary(params, listed, kept, found)
        summary |= {"shards": len({place.shard for place in places}), "bytes": sum(place.size for place in places)}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    _print(summary, time.monotonic() - start)
    for name, counts in summary["sources"].items():
        if counts["quarantined"] and not counts["images"]:
            first = next(refusal for refusal in found.refusals if refusal.source == name)
            say(f"{name}: NOTHING of it could be used; the first: {first.file}: {first.reason}")


def _plan(params: Params) -> tuple[list[Job], dict[str, int]]:
    """The files to read, and how many each source lists (not yet known of archives that are read whole).

    A source with a limit keeps the images whose ids hash lowest; they are chosen before any pixel is read, so that a
    limit saves time, and quality and duplicates may leave fewer.
    """
    jobs: list[Job] = []
    listed = {}
    for name, source in params.geopile.sources.items():
        root = params.paths.raw.path / source.root
        files = list_files(name, source, root)
        if not is_archive(source):
            listed[name] = len(files)
        if source.limit is None:
            jobs += [Job(name, file) for file in files]
            continue
        ranked: list[tuple[int, str, str]] = []
        chosen: dict[str, set[str]] = defaultdict(set)
        for file in files:
            try:
                for image in tile_names(source, root, file, params.geopile.tile_px):
                    ranked.append((xxhash.xxh3_64_intdigest(_bytes_of(f"{name}/{image}")), image, file))
            except ImageError:
                chosen[file] = set()  # the first pass meets the same error and quarantines the file
        if is_archive(source):
            listed[name] = len(ranked)
        for _, image, file in heapq.nsmallest(source.limit, ranked):
            chosen[file].add(image)
        jobs += [Job(name, file, frozenset(chosen[file])) for file in sorted(chosen)]
    return jobs, listed


def _map(params: Params, jobs: Sequence[Job]) -> AbstractContextManager[OrderedMap]:
    if params.geopile.scheduler:
        return cluster_map(params.geopile.scheduler, params.paths.raw.path)
    return ordered_map(_workers(params, jobs))


def _workers(params: Params, jobs: Sequence[Job]) -> int:
    if len(jobs) < FEW_FILES and sum(_size(params, job) for job in jobs) < FEW_BYTES:
        return 1
    return params.geopile.workers or os.cpu_count() or 1


def _size(params: Params, job: Job) -> int:
    path = params.paths.raw.path / params.geopile.sources[job.source].root / job.file
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@dataclass
class _Inspected:
    """What the first pass found."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)  # files, and images of archives, by source
    ignored: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def _inspect_all(params: Params, jobs: Sequence[Job], map_in_order: OrderedMap) -> _Inspected:
    inspected = _Inspected()

    def carried(job: Job) -> int:
        """A scene is a batch by itself: a worker's answer should neither be huge nor tiny."""
        return BATCH_BYTES if cuts_tiles(params.geopile.sources[job.source]) else job.carried

    parts = batches(_opened(params, jobs), _FILES_A_BATCH, carried)
    answers = map_in_order(partial(inspect, params), parts, lambda batch: sum(map(carried, batch)))
    each = (findings for answer in answers for findings in answer)
    for findings in track(each, "reading", total=len(jobs), unit="files", share=lambda findings: findings.share):
        inspected.rows += findings.rows
        inspected.dropped += findings.dropped
        if findings.refusal is not None:
            inspected.refusals.append(findings.refusal)
        inspected.met[findings.source] += bool(findings.rows or findings.dropped or findings.refusal)
        inspected.ignored[findings.source].update(findings.ignored)
    return inspected


def _opened(params: Params, jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs, those of archives image by image.

    This process reads the archives and the workers decode: so one compressed archive, which can only be read from its
    start, keeps all of them busy, and memory holds a few images of it. Raises DataError for a source of archives
    without one image.
    """
    for name, of_source in groupby(jobs, key=lambda job: job.source):
        source = params.geopile.sources[name]
        if not is_archive(source):
            yield from of_source
            continue
        root = params.paths.raw.path / source.root
        found, reason = False, ""
        for job in of_source:
            passed = 0.0
            for part in read_members(source, root, job.file, job.only):
                if isinstance(part, Member):
                    yield Job(name, job.file, part=part, share=part.passed - passed)
                    found, passed = True, part.passed
                else:
                    yield Job(name, job.file, part=part, share=1 - passed)
                    reason = reason or f"{job.file}: {part.reason}"
        if not found:
            raise DataError(
                f"geopile.sources.{name}: no image in the archives below {root} ({reason}); put archives of "
                f"{', '.join(PICTURES)} there, or correct geopile.sources.{name}.root or .include"
            )


def _write_shards(params: Params, folder: Path, rows: Sequence[Row], map_in_order: OrderedMap) -> list[Place]:
    """Write the images of `rows` in their order, but those of one archive in the archive's; the place of each row."""
    places = {}
    parts = batches(_kept(params, rows), _IMAGES_A_BATCH, lambda image: image.carried)
    answers = map_in_order(partial(encode_images, params), parts, lambda batch: sum(image.carried for image in batch))
    encoded = (image for answer in answers for image in answer)
    with ShardWriter(folder, params.geopile.shard_mb) as writer:
        for image in track(encoded, "writing", total=len(rows), unit="images"):
            places[image.id] = writer.add(image.id, image.data, image.suffix)
    return [places[row.id] for row in rows]


def _kept(params: Params, rows: Sequence[Row]) -> Iterator[Kept]:
    """The images to encode; those of an archive with their bytes, in the order in which it gives them."""
    for (name, _), of_file in groupby(rows, key=lambda row: (row.source, row.file)):
        source = params.geopile.sources[name]
        if not is_archive(source):
            yield from map(Kept, of_file)
            continue
        root = params.paths.raw.path / source.root
        wanted = {tile_name_of(row): row for row in of_file}
        archive = file_of(source, next(iter(wanted.values())))
        for part in read_members(source, root, archive, frozenset(wanted)):
            if isinstance(part, Member) and (row := wanted.pop(f"{archive}/{part.name}", None)):
                yield Kept(row, part)
        if wanted:
            raise DataError(f"{root / next(iter(wanted))}: gone since it was read; run `gfm assemble` again")


def _summary(params: Params, listed: dict[str, int], kept: Sequence[Row], found: _Inspected) -> dict[str, Any]:
    """Counts by source: `listed`, `met` (read), `quarantined` are of files, or images of archives; the rest of images.

    `ignored` is of files of archives that are no images, by kind.
    """
    bad = Counter(refusal.source for refusal in found.refusals)
    good = Counter(row.source for row in kept)
    sources = {}
    for name in params.geopile.sources:
        reasons = Counter(drop.reason for drop in found.dropped if drop.source == name)
        sources[name] = {
            "listed": listed.get(name, found.met[name]),
            "met": found.met[name],
            "quarantined": bad[name],
            "images": good[name] + reasons.total(),
            "kept": good[name],
            "dropped": dict(sorted(reasons.items())),
        }
        if found.ignored[name]:
            sources[name]["ignored"] = dict(sorted(found.ignored[name].items()))
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
    for name, counts in summary["sources"].items():
        if "ignored" in counts:
            said = ", ".join(f"{count} {kind}" for kind, count in counts["ignored"].items())
            say(f"{name}: in its archives {said}, which are no images of it")
    if any(counts["quarantined"] for counts in summary["sources"].values()):
        say(f"quarantined files and their reasons: {COLLECTION / 'quarantine.csv'}")


def _bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # a file's name may be any bytes
