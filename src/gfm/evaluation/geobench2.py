"""GEO-Bench-2: its data sets, capability groups and group scores (arXiv 2511.15658 and its public leaderboard).

A group's score is the mean over 100 bootstrap repeats of the interquartile mean of the normalised scores of all its
data sets. The repeats are drawn as the leaderboard draws them, so that its figures come out to the last digit; its
"±" is the standard error over the repeats, which more repeats would make as small as one likes. Here the spread is
the standard deviation over the repeats, and their percentile interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from gfm.errors import DataError
from gfm.evaluation.score_file import read_scores

GROUPS: dict[str, tuple[str, ...]] = {
    name: tuple(members.split())
    for name, members in {
        "Core": "kuro_siwo pastis burn_scars cloudsen12 flair2 spacenet7 benv2 treesatai biomassters fotw substation "
        "everwatch",
        "Classification": "so2sat forestnet benv2 treesatai",
        "Pixel-wise": "kuro_siwo pastis burn_scars spacenet2 cloudsen12 caffe flair2 dynamic_earthnet biomassters "
        "spacenet7 fotw",
        "Detection (Object/Instance)": "substation everwatch nzcattle pastis_r",
        "Multi-Spectral-Dependent": "benv2 biomassters pastis so2sat cloudsen12 spacenet2 burn_scars fotw",
        "Multi-Temporal": "kuro_siwo pastis biomassters dynamic_earthnet",
        "Under 10m Resolution": "spacenet2 treesatai flair2 dynamic_earthnet spacenet7",
        "10m and Above Resolution": "biomassters so2sat kuro_siwo cloudsen12 pastis benv2 forestnet burn_scars caffe "
        "fotw",
        "RGB/NIR": "flair2 treesatai dynamic_earthnet spacenet7 fotw",
    }.items()
}
DATASETS = tuple(sorted({member for members in GROUPS.values() for member in members}))
BIOMASSTERS, RMSE = "biomassters", "rmse"
BIOMASSTERS_STD = 0.2537951171398163  # of its targets: an RMSE becomes the score 1 - RMSE x this
MODEL, DATASET, METRIC, SCORE = "backbone", "dataset", "Metric", "test metric"  # columns of a submission
BOARD_COLUMNS = ("frozen_or_full_ft", "partition name")  # columns that hold one value: other values are another board
REPEATS, FIRST_SEED = 100, 100
TRIM = 0.25  # of each side
CONFIDENCE = 0.95

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """A model's score in a capability group: 0 is the worst and 1 the best published result, and neither is a bound."""

    mean: float
    sd: float  # over the repeats
    low: float  # percentile interval over the repeats
    high: float


@dataclass(frozen=True, slots=True)
class Board:
    """Scores by model and group, and what to know of them."""

    scores: dict[str, dict[str, GroupScore]]
    lacking: dict[str, dict[str, list[str]]]  # the data sets that a model lacks for a group that it has no score in
    rows: dict[str, tuple[int, int]]  # a model's fewest and most scores on one data set


def read_normaliser(path: Path) -> dict[str, Range]:
    """The published worst and best score of each data set; DataError where the file is not such a JSON object."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        ranges = TypeAdapter(dict[str, tuple[float, float]]).validate_python(raw)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise DataError(f"{path}: must map data sets to [min, max]: {where}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: must map data sets to [min, max]: {' '.join(str(error).split())[:200]}") from None
    for dataset, (low, high) in ranges.items():
        if not (np.isfinite([low, high]).all() and low < high):
            raise DataError(f"{path}: {dataset} = [{low:g}, {high:g}]: the smaller number first, both finite")
    return ranges


def read_submission(path: Path, ranges: Mapping[str, Range]) -> pd.DataFrame:
    """Rows of a submission (`results_and_parameters.csv`) with the column `normalised`.

    DataError for a data set that is not in the benchmark or in the normaliser, and for rows of several boards.
    """
    table = read_scores(path, (MODEL, DATASET, METRIC), SCORE)
    for column in BOARD_COLUMNS:
        values = list(dict.fromkeys(table.get(column, [])))
        if len(values) > 1:
            raise DataError(
                f"{path}: {column} is {' and '.join(map(str, values))}, boards of their own; split the file"
            )
    for dataset, rows in table.groupby(DATASET, sort=False):
        metrics = list(dict.fromkeys(rows[METRIC]))
        if len(metrics) > 1:
            raise DataError(f"{path}: {dataset} is scored by {' and by '.join(metrics)}; leave one out")
    if "Seed" in table and table.duplicated([MODEL, DATASET, "Seed"]).any():
        model, dataset, seed = table.loc[table.duplicated([MODEL, DATASET, "Seed"])].iloc[0][[MODEL, DATASET, "Seed"]]
        raise DataError(f"{path}: {model} has two scores on {dataset} with seed {seed}; leave one out")
    for dataset in dict.fromkeys(table[DATASET]):
        if dataset not in DATASETS:
            raise DataError(f"{path}: {dataset} is no data set of GEO-Bench-2; those are {', '.join(DATASETS)}")
        if dataset not in ranges:
            raise DataError(f"{path}: the normaliser has no {dataset}; give the one that was published with it")
    score = table[SCORE].to_numpy(dtype=float)
    is_rmse = (table[DATASET] == BIOMASSTERS) & table[METRIC].str.lower().str.contains(RMSE, regex=False)
    score = np.where(is_rmse, 1 - score * BIOMASSTERS_STD, score)
    low, high = (table[DATASET].map({name: bounds[side] for name, bounds in ranges.items()}) for side in (0, 1))
    return table.assign(normalised=(score - low) / (high - low))


def score_groups(submission: pd.DataFrame) -> Board:
    """Scores of every model in every group whose data sets it has all; the others are named in `lacking`."""
    models = sorted(set(submission[MODEL]))
    cells = {
        (str(model), str(dataset)): rows["normalised"].to_numpy(dtype=float)
        for (model, dataset), rows in submission.groupby([MODEL, DATASET])
    }
    counts = {model: [len(values) for (own, _), values in cells.items() if own == model] for model in models}
    board = Board(
        {model: {} for model in models},
        {model: {} for model in models},
        {model: (min(own), max(own)) for model, own in counts.items()},
    )
    for group, members in GROUPS.items():
        complete = []
        for model in models:
            absent = [member for member in members if (model, member) not in cells]
            if absent:
                board.lacking[model][group] = absent
            else:
                complete.append(model)
        for model, repeats in _repeats(cells, complete, sorted(members)).items():
            low, high = np.quantile(repeats, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            board.scores[model][group] = GroupScore(
                float(repeats.mean()), float(repeats.std(ddof=1)), float(low), float(high)
            )
    return board


def _repeats(
    cells: Mapping[tuple[str, str], NDArray[np.float64]], models: list[str], members: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Interquartile means (REPEATS,) of each model.

    A repeat draws the seeds of all models and data sets, in sorted order, from one generator, as the leaderboard does.
    """
    found = {model: np.empty(REPEATS) for model in models}
    for repeat in range(REPEATS):
        random = np.random.RandomState(FIRST_SEED + repeat)
        for model in models:
            drawn = [_resampled(cells[model, member], random) for member in members]
            found[model][repeat] = interquartile_mean(np.concatenate(drawn))
    return found


def _resampled(values: NDArray[np.float64], random: np.random.RandomState) -> NDArray[np.float64]:
    return values[random.choice(len(values), size=len(values), replace=True)]


def interquartile_mean(values: NDArray[np.float64]) -> float:
    """The mean without the lowest and the highest quarter of the values, each quarter rounded down."""
    cut = int(TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())
