"""The second pass: which shards there are, taken from the cache or written anew, and where every image lies in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from gfm.geopile.cache import Cache
from gfm.geopile.catalogue import Catalogue
from gfm.geopile.findings import forget
from gfm.geopile.parallel import OrderedMap, batches
from gfm.geopile.shards import ShardWriter, cut_shards
from gfm.geopile.sources import Member, is_archive, read_members
from gfm.geopile.tiles import ChangedError, Kept, encode_images, tile_name_of
from gfm.imagery.alike import Numbers
from gfm.params import Params
from gfm.progress import track

FORMAT = 1  # raise it when the same image gives other bytes in a shard: all are then written again

_ENCODERS = ("simplejpeg", "pyarrow", "pillow")
_IMAGES_A_BATCH = 32
_ROWS_AT_ONCE = 1024


class Shard(NamedTuple):
    """One shard: its name in the collection and in the cache, and its images in their order."""

    name: str
    key: str
    images: Numbers  # in the catalogue


@dataclass(frozen=True, slots=True)
class Places:
    """Where the bytes of each image of the catalogue lie: `size` at `offset` of a shard; -1 for those in none."""

    names: list[str]
    shard: npt.NDArray[np.int32]  # a number in `names`
    offset: Numbers
    size: Numbers


def plan_shards(params: Params, catalogue: Catalogue, images: npt.NDArray[np.bool_], prefix: str = "") -> list[Shard]:
    """The shards of the chosen images: of one source each, in the order in which files were looked at."""
    geopile = params.geopile
    order = np.flatnonzero(images)
    order = order[np.argsort(catalogue.seen[order])]
    source = catalogue.entries["source"][order]
    shards = []
    for number, name in enumerate(geopile.sources):
        of_source = order[source == number]
        entries = catalogue.entries[of_source]
        for count, cut in enumerate(cut_shards(entries["content"][:, 0], entries["size"], geopile.shard_mb)):
            part = entries[cut]
            encoder = [] if part["own"].all() else [geopile.jpeg_quality, geopile.store_px, *map(version, _ENCODERS)]
            digest = xxhash.xxh3_128(json.dumps([FORMAT, encoder]).encode())
            digest.update(np.ascontiguousarray(part["content"]).data)
            shards.append(Shard(f"{prefix}{name}-{count:05d}.tar", f"shards/{digest.hexdigest()}", of_source[cut]))
    return shards


def known_shards(cache: Cache, shards: Sequence[Shard]) -> set[str]:
    """The keys of the shards that the cache holds as they were written; their bytes are read to know it."""
    found = set()
    for shard in shards:
        told = _told(cache, shard)
        if told and cache.has(_file(shard), told["bytes"], told["digest"]):
            found.add(shard.key)
    return found


def write_shards(
    params: Params, shards: Sequence[Shard], catalogue: Catalogue, cache: Cache, map_in_order: OrderedMap
) -> None:
    """Write shards into the cache, each as a whole.

    Raises ChangedError when a file is no longer what the first pass saw; it is then looked at again the next time.
    """
    total = sum(len(shard.images) for shard in shards)
    kept = _kept(params, catalogue, shards)
    parts = (  # none of images of two shards
        part for shard in shards for part in batches(islice(kept, len(shard.images)), _IMAGES_A_BATCH, _own_bytes)
    )
    answers = map_in_order(partial(encode_images, params), parts, lambda batch: sum(image.carried for image in batch))
    packed = track(answers, "writing", total=total, unit="images", share=lambda one: len(one.places))
    try:
        for shard in shards:
            images: list[tuple[int, int]] = []
            with ShardWriter(cache.unfinished(_file(shard))) as writer:
                while len(images) < len(shard.images):
                    images += writer.append(next(packed))
            told = {"bytes": writer.size, "digest": writer.digest, "images": images}
            cache.keep(_file(shard))
            cache.write(shard.key, json.dumps(told).encode())
    except ChangedError as error:
        forget(cache, catalogue.unit_of(error.image))
        raise


def place_shards(shards: Sequence[Shard], catalogue: Catalogue, cache: Cache, folder: Path) -> Places:
    """Put shards, which the cache must have, into `folder` under their names."""
    count = len(catalogue)
    places = Places([], np.full(count, -1, np.int32), np.zeros(count, np.int64), np.zeros(count, np.int64))
    for number, shard in enumerate(shards):
        told = _told(cache, shard)
        assert told is not None  # it was written or found a moment ago
        cache.link(_file(shard), folder / shard.name)
        places.names.append(shard.name)
        places.shard[shard.images] = number
        places.offset[shard.images], places.size[shard.images] = np.array(told["images"]).T
    return places


def _own_bytes(image: Kept) -> int:
    """What comes back of an image at least: that much is in memory of every image of a batch."""
    return image.carried or image.row.own_size or 0


def _told(cache: Cache, shard: Shard) -> dict[str, Any] | None:
    content = cache.read(shard.key)
    return None if content is None else dict(json.loads(content))


def _file(shard: Shard) -> str:
    return f"{shard.key}.tar"


def _kept(params: Params, catalogue: Catalogue, shards: Sequence[Shard]) -> Iterator[Kept]:
    """The images to encode; those of an archive with their bytes, in the order in which it gives them."""
    if not shards:
        return
    images = np.concatenate([shard.images for shard in shards])
    unit = catalogue.entries["unit"][images]
    # An archive is read from its start again where images that return come after those that are kept.
    begins = (np.diff(unit) != 0) | (np.diff(catalogue.seen[images]) < 0)
    for of_unit in np.split(images, np.flatnonzero(begins) + 1):
        looked_at = catalogue.units[catalogue.entries["unit"][of_unit[0]]]
        source = params.geopile.sources[looked_at.source]
        chunks = (of_unit[start : start + _ROWS_AT_ONCE] for start in range(0, len(of_unit), _ROWS_AT_ONCE))
        rows = (row for chunk in chunks for row in catalogue.rows(chunk))
        if not is_archive(source):
            yield from map(Kept, rows)
            continue
        root, (archive,) = params.paths.raw.path / source.root, looked_at.files
        wanted = frozenset(name.removeprefix(f"{looked_at.source}/") for name in catalogue.names(of_unit))
        row = next(rows, None)
        for part in read_members(source, root, archive, wanted):
            if row and isinstance(part, Member) and tile_name_of(row) == f"{archive}/{part.name}":
                yield Kept(row, part)
                row = next(rows, None)
        if row:
            raise ChangedError(f"{root / tile_name_of(row)}: gone since it was read; run `gfm assemble` again", row.id)
