"""Tables of scores that a user brings: a CSV with the columns that are needed, every score a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gfm.errors import DataError


def read_scores(path: Path, texts: Sequence[str], score: str) -> pd.DataFrame:
    """The CSV's rows with `texts` as text and `score` as float; other columns stay as they are.

    Raises DataError for a file that is no such CSV, for a column that is missing, and for the first cell that is empty
    or no finite number.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors, and so is text that is not UTF-8
        raise DataError(f"{path}: cannot be read as a CSV table: {' '.join(str(error).split())}") from None
    missing = [column for column in (*texts, score) if column not in table]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]}; it has {', '.join(map(str, table.columns))}")
    if table.empty:
        raise DataError(f"{path}: has no rows")
    for column in texts:
        empty = np.flatnonzero(table[column].str.strip() == "")
        if len(empty):
            raise DataError(f"{path}: line {empty[0] + 2}: {column} is empty")
    numbers = pd.to_numeric(table[score], errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise DataError(f"{path}: line {wrong[0] + 2}: {score} = {table[score].iloc[wrong[0]]!r} is no finite number")
    return table.assign(**{score: numbers})
