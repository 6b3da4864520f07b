"""Tortillas and tacos: files that hold files, with a table of what they are and where they lie.

The first version's layout, as tacotoolbox and pytortilla write it and tacoreader reads it: `#y` (tortilla) or `WX`
(taco), then three little-endian numbers of 8 bytes: where the table begins, how long it is, and how many parts the
data set has. The table is Parquet, at the end, one row a file: tortilla:id, file_format, offset, length and what else
is known. A file of file_format TORTILLA is such a container itself, and its offsets count from its own first byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfm.imagery.raster import ImageError, check_bytes, unreadable

NESTED = "TORTILLA"  # file_format of a container in a container
HEADER_BYTES = 26
MOST_PARTS = 10_000  # a damaged header can say any number
_MAGIC = (b"#y", b"WX")
_ZIP = b"PK\x03\x04"
_COLUMNS = ("tortilla:id", "tortilla:file_format", "tortilla:offset", "tortilla:length")
_PART = re.compile(r"(?P<name>.+)\.(?P<number>\d{4,})\.part\.(tortilla|taco)")
_FIX = "fetch it again"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a file: an offset from its beginning and a length; length None: all of them."""

    file: Path
    offset: int = 0
    length: int | None = None

    def read(self, shown: Path) -> bytes:
        """The bytes; ImageError names `shown` where they are not all there, or too many to be read whole."""
        try:
            size = self.file.stat().st_size
            length = size - self.offset if self.length is None else self.length
            check_bytes(shown, length)
            with self.file.open("rb") as file:
                file.seek(self.offset)
                data = file.read(length)
        except OSError as error:
            raise unreadable(self.file, error) from None
        if len(data) < length:
            raise ImageError(shown, f"reaches beyond the end of {self.file.name}, {size:,} bytes", _FIX)
        return data


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a container."""

    id: str
    format: str  # as GDAL calls it (GTiff), or NESTED
    stretch: Stretch
    fields: Mapping[str, Any]  # of those that were asked for


@dataclass(frozen=True, slots=True)
class Container:
    """A tortilla or taco: a file of its own, or a stretch of one; `shown` is its name in errors."""

    stretch: Stretch
    shown: Path

    def parts(self) -> int:
        """How many parts its data set has, itself included; ImageError as of `entries`."""
        count = self._header()[2]
        if count > MOST_PARTS:
            raise ImageError(self.shown, f"says that it is one of {count} parts", _FIX)
        return count

    def entries(self, fields: Sequence[str] = ()) -> list[Entry]:
        """What it holds, in the table's order, with those of the fields that the table has.

        ImageError where it is no such container, of another version, cut, empty, or where a file would lie outside.
        """
        offset, length, _, size = self._header()
        if offset < HEADER_BYTES or offset + length > size:
            reason = f"its table should lie at bytes {offset:,} to {offset + length:,}, but it has {size:,}"
            raise ImageError(self.shown, f"truncated: {reason}", _FIX)
        found = [self._entry(row, fields, end=offset) for row in self._table(offset, length, fields)]
        if not found:
            raise ImageError(self.shown, "its table lists no file", _FIX)
        return found

    def _header(self) -> tuple[int, int, int, int]:
        """Offset and length of the table, number of parts, and the container's own size."""
        start = self.stretch.offset
        try:
            size = self.stretch.length or self.stretch.file.stat().st_size - start
        except OSError as error:
            raise unreadable(self.stretch.file, error) from None
        if size < HEADER_BYTES:
            raise ImageError(self.shown, f"has {size} bytes, too few for a tortilla", _FIX)
        header = Stretch(self.stretch.file, start, HEADER_BYTES).read(self.shown)
        if header.startswith(_ZIP):
            reason = "is a zip, as tacos are from version 2 on; only the first version can be read"
            raise ImageError(self.shown, reason, "give the files as GEO-Bench-2 publishes them")
        if not header.startswith(_MAGIC):
            raise ImageError(self.shown, f"is no tortilla or taco: it begins with {header[:2]!r}", _FIX)
        offset, length, parts = (int.from_bytes(header[at : at + 8], "little") for at in (2, 10, 18))
        return offset, length, parts, size

    def _table(self, offset: int, length: int, fields: Sequence[str]) -> list[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        data = Stretch(self.stretch.file, self.stretch.offset + offset, length).read(self.shown)
        try:
            table = pq.ParquetFile(pa.BufferReader(data))
            names = table.schema_arrow.names
            missing = [column for column in _COLUMNS if column not in names]
            if missing:
                raise ImageError(self.shown, f"its table has no column {missing[0]}", "it is of an unknown version")
            wanted = [*_COLUMNS, *(name for name in fields if name in names)]
            rows: list[dict[str, Any]] = table.read(wanted).to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
            reason = f"its table cannot be read: {' '.join(str(error).split())[:120]}"
            raise ImageError(self.shown, reason, _FIX) from None
        return rows

    def _entry(self, row: Mapping[str, Any], fields: Sequence[str], end: int) -> Entry:
        name, format_, offset, length = (row[column] for column in _COLUMNS)
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
            raise ImageError(self.shown, f"lists a file of the name {name!r}, which is none", "it is damaged")
        whole = isinstance(offset, int) and isinstance(length, int)
        if not whole or offset < HEADER_BYTES or length < 1 or offset + length > end:
            reason = f"lies at bytes {offset} to {offset + length if whole else '?'}, outside the data (to {end:,})"
            raise ImageError(self.shown / name, reason, _FIX)
        known = {field: row[field] for field in fields if row.get(field) is not None}
        return Entry(name, str(format_), Stretch(self.stretch.file, self.stretch.offset + offset, length), known)


def missing_parts(containers: Sequence[Container]) -> Iterator[Path]:
    """Parts of data sets in several (NAME.0000.part.tortilla) that are not among these containers.

    ImageError where a container's name and the number of parts that it declares do not fit.
    """
    there = {container.stretch.file for container in containers}
    for container in containers:
        file = container.stretch.file
        found = _PART.fullmatch(file.name)
        if found is None:
            continue
        digits, count = len(found["number"]), container.parts()
        if int(found["number"]) >= count:
            reason = f"says that its data set has {count} parts, and is number {found['number']} of them, from 0"
            raise ImageError(container.shown, reason, _FIX)
        for number in range(count):
            part = file.with_name(f"{found['name']}.{number:0{digits}}.part{file.suffix}")
            if part not in there:
                there.add(part)  # once
                yield part
