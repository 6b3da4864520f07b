"""What is known of every image that was found, as arrays in the order of the ids; the rows stay on disk.

About 120 bytes an image and its id: memory holds the hashes of a million images, never a million rows.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from gfm.errors import GfmError
from gfm.geopile.cache import Cache
from gfm.geopile.duplicates import Pictures
from gfm.geopile.findings import read_part, read_parts, rows_of
from gfm.geopile.land_cover import Maps
from gfm.geopile.quality import verdict
from gfm.geopile.quarantine import Refusal
from gfm.geopile.row import Row
from gfm.geopile.units import Unit
from gfm.imagery.alike import Numbers, Words
from gfm.imagery.land_cover import UNKNOWN
from gfm.params import Params

_TABLES_IN_MEMORY = 32

# Bytes of a pixel in one band, roughly: of a JPEG of quality 95, and of the TIFF that other band counts need. Only
# where shards are cut depends on it, which must be known before anything is encoded.
_JPEG_BYTES, _TIFF_BYTES = 0.25, 0.75


class RowReader:
    """Reads rows out of remembered parts; the last tables stay in memory."""

    def __init__(self, cache: Cache, block_km: float) -> None:
        self._cache, self._block_km = cache, block_km
        self._parts: list[str] = []
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()

    def add(self, name: str) -> int:
        """Take one more part; the number to read it by."""
        self._parts.append(name)
        return len(self._parts) - 1

    def read(self, part: int, numbers: Numbers) -> list[Row]:
        """Some rows of one part."""
        return rows_of(self._table(part).take(pa.array(numbers)), self._block_km)

    def _table(self, part: int) -> pa.Table:
        if part in self._tables:
            self._tables.move_to_end(part)
            return self._tables[part]
        found = read_part(self._cache, self._parts[part])
        if found is None:
            raise GfmError(
                f"{self._cache.folder / self._parts[part]}: was removed or damaged meanwhile; run `gfm assemble` again"
            )
        self._tables[part] = found.table
        if len(self._tables) > _TABLES_IN_MEMORY:
            self._tables.popitem(last=False)
        return found.table


_ENTRY = np.dtype(
    [
        ("label", "i4"),  # a number for the label within its source, -1 for none
        ("area", "i8"),  # pixels
        ("source", "i4"),  # its number in geopile.sources
        ("land_cover", "i2"),  # the number of its class in geopile.land_cover, -1 for none
        ("pixels", "u8", 2),  # the pixel hash
        ("looks", "u8"),  # the dHash
        ("entropy_bits", "f4"),
        ("reason", "i2"),  # why it is dropped for its quality: a number in `reasons`, 0 where it is not
        ("content", "u8", 2),  # a hash of the id, the pixels and the file's own bytes, where these are kept
        ("size", "i8"),  # bytes that it takes in a shard, about
        ("own", "?"),  # the file's own bytes are kept, so that no setting of an encoder matters
        ("unit", "i4"),  # whose files it is of
        ("part", "i4"),
        ("number", "i4"),  # of its row in the part
    ]
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All images that were found, one entry each, in the order of the ids."""

    ids: pa.Array
    entries: np.ndarray[Any, Any]  # of _ENTRY
    seen: Numbers  # when each was looked at: source by source, file by file, as files hold them
    reasons: list[str]
    covers: list[str]  # the classes of land cover; empty where none are declared
    units: Sequence[Unit]
    reader: RowReader

    def __len__(self) -> int:
        return len(self.entries)

    def pictures(self, images: Numbers) -> Pictures:
        """What decides between copies."""
        entries = self.entries[images]
        shown = {name: entries[name] for name in Pictures.__slots__ if name != "labelled"}
        return Pictures(labelled=entries["label"] >= 0, **shown)

    def rows(self, images: Numbers) -> list[Row]:
        """The rows of some images, in the order given; quick where images of a file stand together."""
        rows: dict[int, Row] = {}
        part, number = self.entries["part"], self.entries["number"]
        by_part = images[np.argsort(part[images], kind="stable")]
        for group in np.split(by_part, np.flatnonzero(np.diff(part[by_part])) + 1):
            if len(group):
                rows.update(zip(group.tolist(), self.reader.read(int(part[group[0]]), number[group]), strict=True))
        return [rows[image] for image in images.tolist()]

    def unit_of(self, identity: str) -> Unit:
        """The files that the image of this id came from."""
        image = int(pc.index(self.ids, pa.scalar(identity, self.ids.type)).as_py())
        return self.units[int(self.entries["unit"][image])]

    def land_cover(self, images: Numbers) -> list[str | None]:
        """The class of land cover of some images."""
        names = [*self.covers, None]  # the last is that of UNKNOWN
        return [names[number] for number in self.entries["land_cover"][images].tolist()]

    def names(self, images: Numbers) -> list[str]:
        """The ids of some images."""
        return list(self.ids.take(pa.array(images)).to_pylist())


@dataclass(frozen=True, slots=True)
class Met:
    """What became of the files."""

    refusals: list[Refusal]
    files: Counter[str]  # read, by source; images, of archives
    ignored: dict[str, Counter[str]]  # files of archives that are no images, by source and kind


def read_catalogue(
    params: Params, units: Sequence[Unit], cache: Cache, maps: Maps | None = None
) -> tuple[Catalogue, Met]:
    """Judge all that was found; every unit must be known whole, and so must what the maps of land cover say of it."""
    met = Met([], Counter(), defaultdict(Counter))
    reader = RowReader(cache, params.splits.block_km)
    reasons = [""]
    labels: dict[tuple[str, str], int] = {}
    ids, entries = [pa.array([], pa.large_string())], [np.empty(0, _ENTRY)]
    sources = {name: number for number, name in enumerate(params.geopile.sources)}
    for number, unit in enumerate(units):
        for part in read_parts(cache, unit):
            met.refusals.extend(Refusal(unit.source, file, reason) for file, reason in part.told.refusals)
            met.files[unit.source] += part.told.met
            met.ignored[unit.source].update(part.told.ignored)
            rows = rows_of(part.table, params.splits.block_km)
            if rows:
                ids.append(part.table["id"].cast(pa.large_string()).combine_chunks())
                entries.append(_entries(params, rows, reasons, labels))
                entries[-1]["source"], entries[-1]["unit"] = sources[unit.source], number
                entries[-1]["part"] = reader.add(part.name)
                entries[-1]["land_cover"] = UNKNOWN if maps is None else maps.of(cache, part)
    together = pa.chunked_array(ids)
    seen = pc.sort_indices(together).to_numpy().astype(np.int64)
    ordered = together.take(pa.array(seen)).combine_chunks()
    whole = np.concatenate(entries)
    entries.clear()  # three copies are more than needed
    declared = params.geopile.land_cover
    covers = [] if declared is None else declared.names
    return Catalogue(ordered, whole[seen], seen, reasons, covers, units, reader), met


def _entries(
    params: Params, rows: Sequence[Row], reasons: list[str], labels: dict[tuple[str, str], int]
) -> np.ndarray[Any, Any]:
    bands = len(params.geopile.bands)
    per_pixel = bands * (_JPEG_BYTES if bands in (1, 3) else _TIFF_BYTES)
    entries = np.empty(len(rows), _ENTRY)
    entries["label"] = [
        -1 if row.label is None else labels.setdefault((row.source, row.label), len(labels)) for row in rows
    ]
    entries["area"] = [row.width * row.height for row in rows]
    entries["number"] = np.arange(len(rows))
    entries["pixels"] = _words(row.pixel_hash for row in rows).reshape(-1, 2)
    entries["looks"] = _words(row.dhash for row in rows)
    entries["entropy_bits"] = [row.entropy_bits for row in rows]
    entries["own"] = [row.own_hash is not None for row in rows]
    entries["content"] = _words(
        xxhash.xxh3_128_hexdigest(f"{row.id}\0{row.pixel_hash}\0{row.own_hash}".encode()) for row in rows
    ).reshape(-1, 2)
    entries["size"] = entries["area"] * per_pixel
    entries["size"] = [row.own_size or size for row, size in zip(rows, entries["size"].tolist(), strict=True)]
    for number, row in enumerate(rows):
        reason = verdict(row, params.geopile.quality) or ""
        if reason not in reasons:
            reasons.append(reason)
        entries["reason"][number] = reasons.index(reason)
    return entries


def _words(digests: Iterable[str]) -> Words:
    """Hex digits as 64-bit words."""
    return np.frombuffer(bytes.fromhex("".join(digests)), ">u8").astype(np.uint64)
