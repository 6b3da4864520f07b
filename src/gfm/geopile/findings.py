"""The first pass: what every file holds, measured but not judged, remembered in parts of a bounded number of images.

A part is an Arrow table of rows with its refusals and counts beside it. The parts of a unit are numbered, and the last
one says that it is; an archive of which only the first parts are known is decoded from there on.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby

import pyarrow as pa

from gfm.errors import DataError
from gfm.geopile.cache import Cache
from gfm.geopile.manifest import SCHEMA
from gfm.geopile.parallel import BATCH_BYTES, OrderedMap, batches
from gfm.geopile.row import Row
from gfm.geopile.sources import Member, cuts_tiles, is_archive, read_members
from gfm.geopile.sources.suffixes import PICTURES
from gfm.geopile.tiles import Job, inspect
from gfm.geopile.units import Unit
from gfm.imagery.footprint import Bounds, ground_block
from gfm.imagery.raster import may_pass
from gfm.params import Params
from gfm.progress import track

PART_ROWS = 1024  # images after which a part is written: what is in memory, and what a kill may lose

_FILES_A_BATCH = 32
_FIELDS = [name for name in Row._fields if name != "bounds"]
_SCHEMA = pa.schema(
    [
        *(column for column in SCHEMA if column.name in {*_FIELDS, *Bounds._fields}),
        pa.field("own_size", pa.int64()),
        pa.field("own_hash", pa.string()),
    ]
)
_TOLD = b"findings"
# Parts are small: handing their columns to threads costs several times what it saves.
_READ = pa.ipc.IpcReadOptions(use_threads=False)
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)


@dataclass(slots=True)
class Told:
    """What a part tells besides its rows."""

    refusals: list[tuple[str, str]] = field(default_factory=list)  # file and reason
    met: int = 0  # files, or images of an archive, that were read
    ignored: dict[str, int] = field(default_factory=dict)  # how many files of an archive are no images, by kind
    members: int = 0  # images of the archive up to the end of this part, whatever became of them
    last: bool = False
    fleeting: bool = False  # something could not be read for a reason that may pass: look again the next time


@dataclass(frozen=True, slots=True)
class Known:
    """How much of a unit is known from before."""

    parts: int = 0
    members: int = 0
    whole: bool = False
    reason: str = ""  # of its first refusal


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a unit's findings."""

    name: str  # in the cache
    table: pa.Table
    told: Told


def read_part(cache: Cache, name: str) -> Part | None:
    """A part by its name; None where it is not known."""
    content = cache.read(name)
    if content is None:
        return None
    table = pa.ipc.open_stream(content, options=_READ).read_all()
    return Part(name, table, Told(**json.loads(table.schema.metadata[_TOLD])))


def read_parts(cache: Cache, unit: Unit) -> Iterator[Part]:
    """The parts of a unit that are known, without a gap, in their order."""
    number = 0
    while (part := read_part(cache, part_name(unit, number))) is not None:
        yield part
        if part.told.last:
            return
        number += 1


def forget(cache: Cache, unit: Unit) -> None:
    """Look at a unit again the next time."""
    for part in list(read_parts(cache, unit)):
        cache.forget(part.name)


def rows_of(table: pa.Table, block_km: float) -> list[Row]:
    """The rows of a part's table; where the ground is known, their place is a block of `block_km`."""
    columns = {name: table[name].to_pylist() for name in _FIELDS}
    sides = zip(*(table[side].to_pylist() for side in Bounds._fields), strict=True)
    columns["bounds"] = [None if corners[0] is None else Bounds(*corners) for corners in sides]
    columns["place"] = [
        place if bounds is None else ground_block(bounds, block_km)
        for place, bounds in zip(columns["place"], columns["bounds"], strict=True)
    ]
    return [Row._make(values) for values in zip(*(columns[name] for name in Row._fields), strict=True)]


def known(cache: Cache, unit: Unit) -> Known:
    """What is known of a unit: all of it, the first parts of an archive, or nothing."""
    found = Known()
    for number, part in enumerate(read_parts(cache, unit), start=1):
        if part.told.fleeting:
            return Known()
        reason = next((reason for _, reason in part.told.refusals), "")
        found = Known(number, part.told.members, part.told.last, found.reason or reason)
    return found


def inspect_units(params: Params, units: Sequence[tuple[Unit, Known]], cache: Cache, map_in_order: OrderedMap) -> None:
    """Find and remember what is not known yet.

    Raises DataError for a source of archives without one image.
    """
    source_of = params.geopile.sources
    belongs: deque[tuple[Unit, Known, bool]] = deque()  # of every job under way: its unit, and whether it is the last

    def carried(job: Job) -> int:
        """A scene is a batch by itself: a worker's answer should neither be huge nor tiny."""
        return BATCH_BYTES if cuts_tiles(source_of[job.source]) else job.carried

    parts = batches(_jobs(params, units, belongs), _FILES_A_BATCH, carried)
    answers = map_in_order(partial(inspect, params), parts, lambda batch: sum(map(carried, batch)))
    each = (findings for answer in answers for findings in answer)
    total = sum(len(unit.files) for unit, found in units if not found.whole)
    rows: list[Row] = []
    told, number, ignored = Told(), 0, Counter[str]()
    begun: Unit | None = None
    for findings in track(each, "reading", total=total, unit="files", share=lambda findings: findings.share):
        unit, found, last = belongs.popleft()
        if unit is not begun:
            begun, number, told.members = unit, found.parts, found.members
        rows += findings.rows
        if findings.refusal is not None:
            told.refusals.append((findings.refusal.file, findings.refusal.reason))
            told.fleeting |= may_pass(findings.refusal.reason)
        told.met += bool(findings.rows or findings.refusal)
        told.members += not last
        ignored.update(findings.ignored)
        if last or len(rows) >= PART_ROWS:
            told.last, told.ignored = last, dict(ignored)
            write_part(cache, part_name(unit, number), rows, told)
            rows, told, number, ignored = [], Told(members=told.members), number + 1, Counter()


def part_name(unit: Unit, number: int) -> str:
    """The name of a unit's part in the cache."""
    return f"findings/{unit.key}-{number:05d}"


def write_part(cache: Cache, name: str, rows: Sequence[Row], told: Told) -> None:
    """Remember a part."""
    columns = {field: [getattr(row, field) for row in rows] for field in _FIELDS}
    for number, side in enumerate(Bounds._fields):
        columns[side] = [None if row.bounds is None else row.bounds[number] for row in rows]
    schema = _SCHEMA.with_metadata({_TOLD: json.dumps(asdict(told))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_WRITE) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    cache.write(name, sink.getvalue().to_pybytes())


def _jobs(
    params: Params, units: Sequence[tuple[Unit, Known]], belongs: deque[tuple[Unit, Known, bool]]
) -> Iterator[Job]:
    """The jobs of all that is not known, those of archives image by image.

    This process reads the archives and the workers decode: so one compressed archive, which can only be read from its
    start, keeps all of them busy, and memory holds a few images of it.
    """
    for name, of_source in groupby(units, key=lambda pair: pair[0].source):
        source = params.geopile.sources[name]
        if not is_archive(source):
            for unit, found in of_source:
                for number, file in enumerate(() if found.whole else unit.files, start=1):
                    belongs.append((unit, found, number == len(unit.files)))
                    yield Job(name, file, unit.only)
            continue
        root = params.paths.raw.path / source.root
        any_image, reason = False, ""
        for unit, found in of_source:
            (file,) = unit.files
            any_image |= found.members > 0
            reason = reason or (found.reason and f"{file}: {found.reason}")
            passed, to_skip = 0.0, found.members
            for part in () if found.whole else read_members(source, root, file, unit.only):
                if isinstance(part, Member) and to_skip:
                    to_skip -= 1
                    continue
                belongs.append((unit, found, not isinstance(part, Member)))
                if isinstance(part, Member):
                    yield Job(name, file, part=part, share=part.passed - passed)
                    any_image, passed = True, part.passed
                else:
                    yield Job(name, file, part=part, share=1 - passed)
                    reason = reason or f"{file}: {part.reason}"
        if not any_image:
            raise DataError(
                f"geopile.sources.{name}: no image in the archives below {root} ({reason}); put archives of "
                f"{', '.join(PICTURES)} there, or correct geopile.sources.{name}.root or .include"
            )
