"""Reading a table of labels: a CSV of one row a sample."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gfm.downstream.split import Part
from gfm.errors import DataError
from gfm.params import Labels

PARTS: dict[str, Part] = {  # the words of published splits
    "train": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What a table says of one sample."""

    path: str  # below root, with forward slashes
    labels: tuple[str, ...]
    part: Part | None  # None: the table does not say
    problem: str = ""  # why it cannot be used


def read_labels(path: Path, declared: Labels, kind: str, split_column: str | None) -> list[Row]:
    """The rows of a table, in its order; a row that cannot be used says why.

    DataError where the file or a column is missing, or a row's part is none.
    """
    rows: dict[str, Row] = {}
    lines: dict[str, int] = {}
    for line, cells in _records(path, [declared.path, declared.label, *([split_column] if split_column else [])]):
        name = PurePosixPath(cells[declared.path].strip().replace("\\", "/")).as_posix()
        part = None if split_column is None else _part(path, line, split_column, cells[split_column])
        labels, problem = _labels(cells[declared.label], declared, kind)
        if name == "." or name.startswith("/") or ".." in name.split("/"):
            problem = f"line {line} of {path.name}: is no path below root"
        if name in lines:
            problem = f"stands in lines {lines[name]} and {line} of {path.name}"
        lines.setdefault(name, line)
        rows[name] = Row(name, labels, part, problem)
    return list(rows.values())


def _records(path: Path, wanted: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, restkey="", restval="")
            names = [name.strip() for name in table.fieldnames or []]
            table.fieldnames = names
            missing = [column for column in wanted if column not in names]
            if missing:
                raise DataError(
                    f"{path}: has no column {missing[0]}; it has {', '.join(names) or 'none'}; name the columns in "
                    "data.labels and data.split.column"
                )
            for cells in table:
                yield table.line_num, {column: cells[column] for column in wanted}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; it is data.labels.file below data.root") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; data.labels.file names the CSV table itself, below data.root") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV table: {error}") from None


def _labels(cell: str, declared: Labels, kind: str) -> tuple[tuple[str, ...], str]:
    """The labels of a cell, and what is wrong with them."""
    text = cell.strip()
    if not text:
        return (), "its label is empty"
    if kind == "multilabel":
        return tuple(sorted({part.strip() for part in text.split(declared.separator)} - {""})), ""
    if kind == "regression":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        return (text,), "" if math.isfinite(number) else f"its label {text} is no finite number"
    return (text,), ""


def _part(path: Path, line: int, column: str, cell: str) -> Part:
    part = PARTS.get(cell.strip().lower())
    if part is None:
        raise DataError(f"{path}: line {line}: {column} = {cell.strip()!r} is none of {', '.join(PARTS)}")
    return part
