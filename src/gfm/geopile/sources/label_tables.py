"""Several labels an image, from CSV tables: a row an image, a column of 0 and 1 a label, as MLRSNet has them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gfm.errors import DataError
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.listing import glob_regex

Labels = tuple[str, ...]  # of one image, sorted


@dataclass(frozen=True)
class LabelTable:
    """The labels of images by what the tables' first column says: a file name, or a path below the source's root."""

    labels: dict[str, Labels]

    def of(self, file: str) -> Labels | None:
        """The labels of an image, named relative to the source's root; None where no row is its."""
        found = self.labels.get(file)
        return self.labels.get(_name(file)) if found is None else found


@lru_cache(maxsize=8)
def read_label_tables(folder: Folder, pattern: str) -> LabelTable:
    """All tables of `folder` that match the glob; kept, until `cache_clear`, for the images that ask one by one.

    The first column names the image, every other is a label; tables may give the labels in any order. Raises DataError
    naming table and line for what is not so: no UTF-8, other labels than in the first table, a value other than 0 and
    1, a row without a name or of other length, a second row of an image.
    """
    tables = sorted(file for file in folder.files("") if glob_regex(pattern).fullmatch(file))
    if not tables:
        raise DataError(f"{folder.shown} holds no table that matches {pattern}; correct label_tables or root")
    labels: dict[str, Labels] = {}
    places: dict[str, str] = {}
    first: list[str] = []
    for table in tables:
        for line, columns, image, values in _rows(folder, table):
            where = f"{folder.path(table)} line {line}"
            if sorted(columns) != sorted(first or columns):
                other = sorted(set(columns) ^ set(first))[0]
                raise DataError(f"{where}: label {other} is in one of {tables[0]} and {table} only; give both the same")
            first = first or columns
            if image in places:
                raise DataError(f"{where}: {image} has a row already, {places[image]}; remove one")
            places[image] = where
            labels[image] = tuple(sorted(label for label, value in zip(columns, values, strict=True) if value == "1"))
    return LabelTable(labels)


def check_label_tables(table: LabelTable, files: Sequence[str], pattern: str) -> None:
    """DataError where no image has a row, or where a row may be meant for two images."""
    if not any(table.of(file) is not None for file in files):
        row = next(iter(table.labels), "no row at all")
        raise DataError(f"{pattern}: no row of it names an image: the first says {row}, images are {files[0]}, …")
    names = Counter(_name(file) for file in files if file not in table.labels)
    twice = next((name for name, count in names.items() if count > 1 and name in table.labels), None)
    if twice is not None:
        raise DataError(f"{pattern}: {names[twice]} images are called {twice}; give their paths below root as names")


def _rows(folder: Folder, table: str) -> Iterator[tuple[int, list[str], str, list[str]]]:
    """Line, labels of the header, name of the image and its values; the header itself comes as a check of line 1."""
    path = folder.path(table)
    with folder.open(table) as file:
        data = file.read()
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        columns = header[1:]
        if not columns or "" in columns or len(set(columns)) < len(columns):
            wanted = "commas between a column of image names and one column a label, all different"
            raise DataError(f"{path} line 1: its columns are {', '.join(header)[:200] or 'none'}; wanted are {wanted}")
        for row in reader:
            if not row:
                continue
            where = f"{path} line {reader.line_num}"
            image, *values = (cell.strip() for cell in row)
            if not image:
                raise DataError(f"{where}: names no image")
            if len(values) != len(columns):
                raise DataError(f"{where}: {image} has {len(values)} values, the header has {len(columns)} labels")
            wrong = next((number for number, value in enumerate(values) if value not in ("0", "1")), None)
            if wrong is not None:
                raise DataError(f"{where}: {columns[wrong]} of {image} is {values[wrong]!r}; write 0 or 1")
            yield reader.line_num, columns, image, values
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as such") from None
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}") from None


def _name(file: str) -> str:
    return file.rsplit("/", 1)[-1]
