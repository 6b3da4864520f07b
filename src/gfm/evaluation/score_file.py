"""Tables of scores that a user brings: a CSV with the columns that are needed, every score a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gfm.errors import DataError

LARGEST = 1e100  # what is above it is no score, and would overflow in means


def read_scores(path: Path, texts: Sequence[str], score: str) -> pd.DataFrame:
    """The CSV's rows with `texts` as text and `score` as float; other columns stay as they are.

    Raises DataError for a file that is no such CSV, for a column that is missing, and for the first cell that is empty
    or no finite number.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, compression=None)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors, and so is text that is not UTF-8
        raise DataError(f"{path}: cannot be read as a CSV table: {' '.join(str(error).split())}") from None
    twice = [name for name in texts if f"{name}.1" in table] + ([score] if f"{score}.1" in table else [])
    if twice:
        raise DataError(f"{path}: has the column {twice[0]} twice")
    missing = [column for column in (*texts, score) if column not in table]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]}; it has {', '.join(map(str, table.columns))}")
    if table.empty:
        raise DataError(f"{path}: has no rows")
    for column in texts:
        table[column] = table[column].str.strip()
        empty = np.flatnonzero(table[column] == "")
        if len(empty):
            raise DataError(f"{path}: line {_line(path, empty[0])}: {column} is empty")
    numbers = pd.to_numeric(table[score], errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~(np.abs(numbers) < LARGEST))
    if len(wrong):
        found = table[score].iloc[wrong[0]]
        raise DataError(f"{path}: line {_line(path, wrong[0])}: {score} = {found!r} is no finite number")
    return table.assign(**{score: numbers})


def _line(path: Path, row: int) -> int:
    """Where a row of the table stands in the file, whose blank lines are no rows."""
    filled = [number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    return filled[row + 1]
