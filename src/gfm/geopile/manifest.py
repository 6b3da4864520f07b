"""The collection's table: one row per kept image, as GeoParquet, the same bytes for the same rows."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gfm.geopile.row import Row
from gfm.imagery.footprint import Bounds

_TEXT, _FLOAT = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [
        pa.field("id", _TEXT, nullable=False),
        pa.field("source", _TEXT, nullable=False),
        pa.field("place", _TEXT, nullable=False),
        pa.field("file", _TEXT, nullable=False),
        pa.field("label", _TEXT),
        pa.field("labels", pa.list_(_TEXT)),
        pa.field("shard", _TEXT, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("gsd_m", _FLOAT),
        pa.field("crs", _TEXT),
        pa.field("transform", pa.list_(_FLOAT)),
        pa.field("date", _TEXT),
        pa.field("licence", _TEXT, nullable=False),
        pa.field("entropy_bits", _FLOAT, nullable=False),
        pa.field("contrast", _FLOAT, nullable=False),
        pa.field("sharpness", _FLOAT, nullable=False),
        pa.field("nodata_share", _FLOAT, nullable=False),
        pa.field("cloud_share", _FLOAT),
        pa.field("pixel_hash", _TEXT, nullable=False),
        pa.field("dhash", _TEXT, nullable=False),
        *(pa.field(side, _FLOAT) for side in Bounds._fields),
        pa.field("geometry", pa.binary()),
    ]
)


LAND_COVER = pa.field("land_cover", _TEXT)  # of a manifest whose collection declares it


class Place(NamedTuple):
    """Where an image's bytes lie: `size` bytes at `offset` of a shard."""

    shard: str
    offset: int
    size: int


class ManifestWriter:
    """Writes one manifest, a group of rows at a time; a context manager that ends the file."""

    def __init__(self, path: Path, licences: dict[str, str], *, land_cover: bool = False) -> None:
        self.path, self.licences = path, licences
        self.schema = SCHEMA.insert(SCHEMA.get_field_index("shard"), LAND_COVER) if land_cover else SCHEMA
        self._extent = _Extent()

    def __enter__(self) -> ManifestWriter:
        self._file = self.path.open("wb")  # so that a full disk is Python's error
        self._writer = pq.ParquetWriter(self._file, self.schema, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            try:
                if error is None:
                    self._writer.add_key_value_metadata({"geo": self._extent.geo()})
                    self._writer.close()
            finally:
                self._writer.is_open = False  # or its destructor writes once more, into a closed file

    def add(self, rows: Sequence[tuple[Row, Place, str | None]]) -> None:
        """Append rows (sorted by id, also from call to call) with their places in the shards and their land cover."""
        if not rows:
            return
        images, places, covers = zip(*rows, strict=True)
        bounds = [image.bounds for image in images]
        columns: dict[str, Sequence[Any]] = {
            **{name: [getattr(image, name) for image in images] for name in SCHEMA.names if name in Row._fields},
            **dict(zip(Place._fields, zip(*places, strict=True), strict=True)),
            **{side: [one and getattr(one, side) for one in bounds] for side in Bounds._fields},
            "licence": [self.licences[image.source] for image in images],
            "land_cover": covers,
            "geometry": [one and wkb(one) for one in bounds],
        }
        for one in filter(None, bounds):
            self._extent.add(one)
        chosen = {name: columns[name] for name in self.schema.names}
        self._writer.write_table(pa.table(chosen, schema=self.schema), row_group_size=len(rows))


def wkb(bounds: Bounds) -> bytes:
    """The footprint as a WKB polygon, counter-clockwise; two of them where it crosses the antimeridian."""
    west, south, east, north = bounds
    if east < west:
        parts = [(west, south, 180.0, north), (-180.0, south, east, north)]
        return struct.pack("<BII", 1, 6, 2) + b"".join(_polygon(*part) for part in parts)
    return _polygon(west, south, east, north)


def _polygon(west: float, south: float, east: float, north: float) -> bytes:
    ring = (west, south, east, south, east, north, west, north, west, south)
    return struct.pack("<BIII10d", 1, 3, 1, 5, *ring)


@dataclass(slots=True)
class _Extent:
    """What footprints cover together."""

    west: float = 180.0
    south: float = 90.0
    east: float = -180.0
    north: float = -90.0
    kinds: set[str] = field(default_factory=set)

    def add(self, bounds: Bounds) -> None:
        crosses = bounds.east < bounds.west
        self.kinds.add("MultiPolygon" if crosses else "Polygon")
        self.west, self.east = (
            (-180.0, 180.0) if crosses else (min(self.west, bounds.west), max(self.east, bounds.east))
        )
        self.south, self.north = min(self.south, bounds.south), max(self.north, bounds.north)

    def geo(self) -> str:
        """GeoParquet 1.1 metadata; no `crs` means longitude and latitude of WGS 84."""
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(self.kinds)}
        if self.kinds:
            column["bbox"] = [self.west, self.south, self.east, self.north]
        return json.dumps(
            {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}, sort_keys=True
        )
