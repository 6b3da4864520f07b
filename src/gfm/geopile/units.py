"""What assembly looks at and remembers as one: a run of a source's files, a scene, or an archive; and its key.

A key names all that the findings depend on: the files' names, sizes and times of change, how the source is declared,
and what decodes them. Runs of files are cut by the files' names, so that one file more or less changes one run.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import xxhash

from gfm.geopile.cache import Cache
from gfm.geopile.row import Row
from gfm.geopile.sources import cuts_tiles, is_archive, list_files, stamp, tile_names
from gfm.geopile.sources.folder import Stamp
from gfm.imagery.raster import ImageError
from gfm.params import Params, Source

FORMAT = 1  # raise it when the same file gives other findings: they are then all made again

# What findings do not depend on, of a source and of `geopile`. A new parameter is taken to matter until it is named.
_OF_NO_MATTER = {"licence", "citation", "include", "limit", "weight"}
_JUDGED_LATER = {
    "sources",
    "quality",
    "near_duplicate_bits",
    "land_cover",
    "quota",
    "leave_out",
    "shard_mb",
    "jpeg_quality",
    "workers",
    "scheduler",
}
_DECODERS = ("numpy", "opencv-python-headless", "simplejpeg", "pillow", "rasterio", "xxhash")

_FILES = 128  # of a run, on average
_MOST_FILES, _MOST_BYTES = 512, 64 << 20


@dataclass(frozen=True, slots=True)
class Unit:
    """Files of one source, looked at in this order; `only` names a file's images where a limit chose among them."""

    key: str
    source: str
    files: tuple[str, ...]
    only: frozenset[str] | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All units, in the order of the sources, and how many files each source lists (images, of limited archives)."""

    units: list[Unit]
    listed: dict[str, int]


def list_units(params: Params, cache: Cache) -> Listing:
    """The files to look at.

    A source with a limit keeps the images whose ids hash lowest; they are chosen before any pixel is read, so that a
    limit saves time, and quality and duplicates may leave fewer. Raises DataError for a source without files.
    """
    units: list[Unit] = []
    listed = {}
    for name, source in params.geopile.sources.items():
        root = params.paths.raw.path / source.root
        files = list_files(name, source, root)
        declared = _declared(params, name)
        if not is_archive(source):
            listed[name] = len(files)
        if source.limit is None:
            units += _units(name, source, root, files, declared)
            continue
        chosen, count = _chosen(params, name, files, declared, cache)
        if is_archive(source):
            listed[name] = count
        if cuts_tiles(source) or is_archive(source):
            units += (
                _unit(name, (file,), [stamp(source, root, file)], declared, frozenset(chosen[file]))
                for file in sorted(chosen)
            )
        else:
            units += _units(name, source, root, sorted(chosen), declared)
    return Listing(units, listed)


def _units(name: str, source: Source, root: Path, files: Sequence[str], declared: str) -> Iterator[Unit]:
    alone = cuts_tiles(source) or is_archive(source)
    run: list[str] = []
    stamps: list[Stamp] = []
    size = 0
    for file in files:
        run.append(file)
        stamps.append(stamp(source, root, file))
        size += _size(stamps[-1])
        ends = xxhash.xxh3_64_intdigest(_bytes_of(file)) % _FILES == 0
        if alone or ends or len(run) == _MOST_FILES or size >= _MOST_BYTES:
            yield _unit(name, tuple(run), stamps, declared, None)
            run, stamps, size = [], [], 0
    if run:
        yield _unit(name, tuple(run), stamps, declared, None)


def _unit(
    name: str, files: tuple[str, ...], stamps: Sequence[Stamp], declared: str, only: frozenset[str] | None
) -> Unit:
    key = _digest([declared, files, stamps, None if only is None else sorted(only)])
    return Unit(f"{name}-{key}", name, files, only, sum(map(_size, stamps)))


def _chosen(
    params: Params, name: str, files: Sequence[str], declared: str, cache: Cache
) -> tuple[dict[str, set[str]], int]:
    """By file the images that a limit leaves, and how many there are in all."""
    source = params.geopile.sources[name]
    root = params.paths.raw.path / source.root
    chosen: dict[str, set[str]] = defaultdict(set)
    count = 0

    def ranked() -> Iterator[tuple[int, str, str]]:
        nonlocal count
        for file in files:
            names, whole = _names(source, root, file, params.geopile.tile_px, declared, cache)
            if not whole:
                chosen[file] = set()  # the first pass meets the same error and quarantines the file
            for image in names:
                count += 1
                yield xxhash.xxh3_64_intdigest(_bytes_of(f"{name}/{image}")), image, file

    for _, image, file in heapq.nsmallest(source.limit or 0, ranked()):
        chosen[file].add(image)
    return chosen, count


def _names(source: Source, root: Path, file: str, tile_px: int, declared: str, cache: Cache) -> tuple[list[str], bool]:
    """The names of a file's images, and whether they are all."""
    if not (cuts_tiles(source) or is_archive(source)):
        return [file], True
    known = f"names/{_digest([declared, file, stamp(source, root, file)])}"
    if (content := cache.read(known)) is not None:
        return list(json.loads(content)), True
    names = []
    try:
        for name in tile_names(source, root, file, tile_px):
            names.append(name)
    except ImageError:
        return names, False
    cache.write(known, json.dumps(names).encode())
    return names, True


def _declared(params: Params, name: str) -> str:
    """All that findings of a source's files depend on, besides the files."""
    source = params.geopile.sources[name].model_dump(exclude=_OF_NO_MATTER)
    geopile = params.geopile.model_dump(exclude=_JUDGED_LATER)
    decoders = [version(library) for library in _DECODERS]
    return json.dumps([FORMAT, decoders, list(Row._fields), name, source, geopile])


def _size(stamp: Stamp) -> int:
    size = stamp[1]
    return size if isinstance(size, int) else 0


def _digest(value: object) -> str:
    return str(xxhash.xxh3_128_hexdigest(json.dumps(value).encode()))  # names that are no UTF-8 are escaped


def _bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # a file's name may be any bytes
