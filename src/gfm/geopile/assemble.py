"""Build the pretraining collection: sources -> tiles -> quality -> duplicates -> shards and manifest.

Two passes over the files, each remembered (`cache.py`), so that an assembly does what no earlier one has done. The
first decodes, measures and hashes, and judges nothing. Then all images are judged, duplicates are found among them,
and the second pass reads the kept images again and writes them shard by shard, in the order in which files were looked
at. Reading twice costs less than holding or spooling every encoded image (tens of gigabytes at full scale), and since
results are taken in order, the bytes depend neither on the number of processes nor on what was remembered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import numpy as np

from gfm.disk_room import is_full_disk
from gfm.errors import GfmError
from gfm.geopile.cache import Cache
from gfm.geopile.catalogue import Catalogue, read_catalogue
from gfm.geopile.choice import Choice, choose, dropped
from gfm.geopile.cluster import cluster_map, on_shared_paths
from gfm.geopile.findings import inspect_units, known
from gfm.geopile.land_cover import list_maps, look_up, unknown_parts
from gfm.geopile.manifest import ManifestWriter, Place
from gfm.geopile.parallel import OrderedMap, in_this_process, ordered_map
from gfm.geopile.quarantine import write_dropped, write_quarantine
from gfm.geopile.stored_shards import Places, known_shards, place_shards, plan_shards, write_shards
from gfm.geopile.summary import print_summary, summarise, write_summary
from gfm.geopile.units import list_units
from gfm.layout import COLLECTION, MANIFEST, SHARDS, manifest_without
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say

# Starting processes takes seconds (770 files on a busy machine: 15 s alone, 29 s with four processes).
FEW_FILES = 2000
FEW_BYTES = 256e6

RETURNED = "returned/"  # shards of images that only a collection without some source holds

_ROWS_A_GROUP = 16384


def assemble(params: Params) -> None:
    """Write the collection to `gfm.layout.COLLECTION`, whole or not at all, and print what became of each source.

    Raises DataError when a source's folder is missing or holds nothing that matches; a single bad file is quarantined.
    GfmError where the disk is full.
    """
    start = time.monotonic()
    params = on_shared_paths(params)
    with _full_disk(), new_folder(COLLECTION) as folder, Cache() as cache, _map(params) as on_workers:
        listing = list_units(params, cache)
        maps = list_maps(params, cache)
        units = [(unit, known(cache, unit)) for unit in listing.units]
        missing = [unit for unit, found in units if not found.whole]
        files, size = sum(len(unit.files) for unit in missing), sum(unit.bytes for unit in missing)
        inspect_units(params, units, cache, _worth(params, on_workers, files, size))
        if maps is not None:
            parts = unknown_parts(maps, listing.units, cache)
            look_up(maps, list(parts), cache, _worth(params, on_workers, sum(parts.values()), 0))
        catalogue, met = read_catalogue(params, listing.units, cache, maps)

        choice = choose(params, catalogue)
        shards = plan_shards(params, catalogue, choice.kept)
        shards += plan_shards(params, catalogue, choice.returned, RETURNED)
        have = known_shards(cache, shards)
        lacking = [shard for shard in shards if shard.key not in have]
        images = np.concatenate([shard.images for shard in lacking]) if lacking else np.empty(0, np.int64)
        size = int(catalogue.entries["size"][images].sum())
        write_shards(params, lacking, catalogue, cache, _worth(params, on_workers, len(images), size))
        places = place_shards(shards, catalogue, cache, folder / SHARDS.name)

        write_manifests(params, folder, catalogue, places, choice)
        write_quarantine(folder / "quarantine.csv", met.refusals)
        write_dropped(folder / "dropped.csv", dropped(params, catalogue, choice))
        summary = summarise(params, listing.listed, catalogue, met, choice)
        summary |= {"shards": len(shards), "bytes": int(places.size.sum())}
        write_summary(folder / "summary.json", summary)
        cache.prune()
    print_summary(summary, met.refusals, time.monotonic() - start)
    whole = np.array([found.whole for _, found in units])
    remembered = int(whole[catalogue.entries["unit"]].sum())
    if remembered or have:
        say(
            f"{remembered:,} of {len(catalogue):,} images were known from before, "
            f"{len(shards) - len(lacking):,} of {len(shards):,} shards"
        )


@contextmanager
def _full_disk() -> Iterator[None]:
    """A disk without space is an error that says what is kept."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise GfmError(
            f"{error.filename or COLLECTION}: {(error.strerror or 'no space left').lower()}; make room and run "
            "`gfm assemble` again: it goes on from what it has finished"
        ) from None


def _map(params: Params) -> AbstractContextManager[OrderedMap]:
    if params.geopile.scheduler:
        return cluster_map(params.geopile.scheduler, params.paths.raw.path)
    return ordered_map(params.geopile.workers or os.cpu_count() or 1)


def _worth(params: Params, on_workers: OrderedMap, files: int, size: int) -> OrderedMap:
    """Processes where there is enough to do (they are started when they are first used); a cluster, if there is one."""
    if params.geopile.scheduler is None and files < FEW_FILES and size < FEW_BYTES:
        return in_this_process
    return on_workers


def write_manifests(params: Params, folder: Path, catalogue: Catalogue, places: Places, choice: Choice) -> None:
    """The manifest, and one for each source left out, in one reading of the rows."""
    licences = {name: source.licence for name, source in params.geopile.sources.items()}
    manifests = {MANIFEST: choice.kept, **{manifest_without(name): images for name, images in choice.without.items()}}
    in_any = np.flatnonzero(places.shard >= 0)
    with ExitStack() as stack:
        writers = []
        for path, images in manifests.items():
            path = folder / path.relative_to(COLLECTION)
            path.parent.mkdir(exist_ok=True)
            writer = ManifestWriter(path, licences, land_cover=params.geopile.land_cover is not None)
            writers.append((stack.enter_context(writer), images))
        for start in range(0, len(in_any), _ROWS_A_GROUP):
            group = in_any[start : start + _ROWS_A_GROUP]
            rows = catalogue.rows(group)
            columns = (places.shard, places.offset, places.size)
            where = [
                Place(places.names[shard], offset, size)
                for shard, offset, size in zip(*(column[group].tolist() for column in columns), strict=True)
            ]
            covers = catalogue.land_cover(group)
            for writer, images in writers:
                mine = np.flatnonzero(images[group]).tolist()
                writer.add([(rows[number], where[number], covers[number]) for number in mine])
