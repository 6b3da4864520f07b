"""The collection's table: one row per kept image, as GeoParquet, the same bytes for the same rows."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gfm.geopile.row import Place, Row
from gfm.imagery.footprint import Bounds

_TEXT, _FLOAT = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [
        pa.field("id", _TEXT, nullable=False),
        pa.field("source", _TEXT, nullable=False),
        pa.field("place", _TEXT, nullable=False),
        pa.field("file", _TEXT, nullable=False),
        pa.field("label", _TEXT),
        pa.field("shard", _TEXT, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("gsd_m", _FLOAT),
        pa.field("crs", _TEXT),
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


def write_manifest(path: Path, rows: Sequence[Row], places: Sequence[Place], licences: dict[str, str]) -> None:
    """Write rows (sorted by id) and their places in the shards; `licences` is by source."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row, place in zip(rows, places, strict=True):
        values = {
            **{name: getattr(row, name) for name in Row.__slots__ if name != "bounds"},
            **{name: getattr(place, name) for name in Place.__slots__},
            **(row.bounds._asdict() if row.bounds else {}),
            "licence": licences[row.source],
            "geometry": wkb(row.bounds) if row.bounds else None,
        }
        for name, column in columns.items():
            column.append(values.get(name))
    table = pa.table(columns, schema=SCHEMA.with_metadata({"geo": _geo([row.bounds for row in rows if row.bounds])}))
    pq.write_table(table, path, compression="zstd")


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


def _geo(footprints: Sequence[Bounds]) -> str:
    """GeoParquet 1.1 metadata; no `crs` means longitude and latitude of WGS 84."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": []}
    if footprints:
        kinds = {"MultiPolygon" if bounds.east < bounds.west else "Polygon" for bounds in footprints}
        column["geometry_types"] = sorted(kinds)
        whole = "MultiPolygon" in kinds
        column["bbox"] = [
            -180.0 if whole else min(bounds.west for bounds in footprints),
            min(bounds.south for bounds in footprints),
            180.0 if whole else max(bounds.east for bounds in footprints),
            max(bounds.north for bounds in footprints),
        ]
    return json.dumps(
        {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}, sort_keys=True
    )
