"""The training images of a pretraining that leaves out what repeats others in its teacher's eyes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from gfm.errors import GfmError
from gfm.params import Embedding, Params
from gfm.pretraining.collection import Rows
from gfm.pretraining.embed import Look
from gfm.pretraining.feature_blocks import forget_features
from gfm.pretraining.repeats import Repeat, find_repeats, write_repeats
from gfm.pretraining.teacher_cache import FOLDER, wait_for
from gfm.pretraining.trainer import Processes
from gfm.progress import say

WAIT_S = 6 * 3600.0  # for the first process, which runs the teacher once over all training images


def repeats_in(
    params: Params, name: str, train: Rows, cosine: float, belongs: Mapping[str, Any], processes: Processes
) -> list[Repeat]:
    """The rows of `train` that `pretrain.NAME.duplicate_cosine` leaves out.

    The list is kept beside the teacher's features, by what it depends on (`belongs`: data and teacher), so that a
    resumed training and every process read the same images, whatever a GPU rounds. The first process makes it.
    """
    whole = json.dumps({**belongs, "cosine": cosine}, sort_keys=True)
    path = FOLDER / f"duplicates-{xxhash.xxh3_64_hexdigest(whole.encode())}.csv"
    if processes.rank == 0 and not path.exists():
        look = Look.of(params, "teacher", Embedding(workers=params.pretrain[name].workers))
        purpose = f"pretrain-{name}"
        blocks = look.blocks(train, purpose)
        forget_features(purpose, but=[blocks])
        features = look.features(train, blocks, "train").features
        found = find_repeats(train, features, list(params.geopile.sources), cosine)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        write_repeats(unfinished, found)
        unfinished.replace(path)
        forget_features(purpose)
    wait_for(path, WAIT_S)
    found = _read(path)
    if processes.rank == 0:
        say(f"pretrain {name}: {len(found)} of {len(train)} training images repeat others and are left out: {path}")
    return found


def without(rows: Rows, repeats: list[Repeat]) -> Rows:
    """The rows that are not listed."""
    left_out = {repeat.id for repeat in repeats}
    return rows.where([identity not in left_out for identity in rows.table["id"].to_pylist()]) if left_out else rows


def _read(path: Path) -> list[Repeat]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [Repeat(row["id"], row["kept"], float(row["cosine"])) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GfmError(f"{path}: cannot be read ({error}); remove it, and it is made again") from None
