"""Training images that repeat others in an encoder's eyes: near duplicates by the cosine of pooled features.

It finds what a perceptual hash does not: the same place shifted, another exposure, another crop (SemDeDup, Abbas et
al. 2023, arXiv 2303.09540, with a stated rule of which image is kept instead of clusters).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gfm.imagery.preference import by_preference
from gfm.pretraining.collection import Rows

BLOCK = 1024  # images compared at once, with so many
CHUNK = 65536  # kept ones


class Repeat(NamedTuple):
    """An image that is left out for one that is kept."""

    id: str
    kept: str
    cosine: float


def find_repeats(rows: Rows, features: Tensor, sources: Sequence[str], cosine: float) -> list[Repeat]:
    """The rows whose features (N, C), in the order of ids, are at least `cosine` alike to those of a kept row, by id.

    Kept of a group is the one that `gfm.imagery.preference` puts first (as of perceptual duplicates), `sources` being
    the declared ones in their order; `kept` is the most similar of the kept rows. Every pair is compared, a block at a
    time, on the device of `features`: N * N * C multiplications at most.
    """
    table = rows.table
    order = {source: number for number, source in enumerate(sources)}
    source = np.array([order.get(name, len(order)) for name in table["source"].to_pylist()])
    area = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
    ranked = by_preference(table["label"].is_valid().to_numpy(), area, source).tolist()
    among = F.normalize(features.float(), dim=1)[ranked]
    kept: list[int] = []  # positions in `ranked`
    found = []
    for start in range(0, len(ranked), BLOCK):
        block = among[start : start + BLOCK]
        best, at = _most_alike(block, among, kept)
        own = (block @ block.T).cpu().numpy()
        alive = np.zeros(len(block), bool)
        for row in range(len(block)):
            here = np.where(alive[:row], own[row, :row], -np.inf)
            value, partner = best[row], at[row]
            if row and here.max() > value:
                value, partner = here.max(), start + int(here.argmax())
            if value >= cosine:
                gone, stays = rows.id(ranked[start + row]), rows.id(ranked[int(partner)])
                found.append(Repeat(gone, stays, round(float(value), 4)))
            else:
                alive[row] = True
        kept += [start + int(row) for row in np.flatnonzero(alive)]
    return sorted(found)


def _most_alike(block: Tensor, among: Tensor, kept: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each row of `block`: its highest cosine with the kept rows of `among`, and that row's position."""
    best = torch.full((len(block),), -torch.inf, device=block.device)
    at = torch.zeros(len(block), dtype=torch.int64, device=block.device)
    for first in range(0, len(kept), CHUNK):
        positions = torch.tensor(kept[first : first + CHUNK], device=block.device)
        values, places = (block @ among[positions].T).max(dim=1)
        better = values > best
        best, at = torch.where(better, values, best), torch.where(better, positions[places], at)
    return best.cpu().numpy(), at.cpu().numpy()


def write_repeats(path: Path, repeats: Sequence[Repeat]) -> None:
    """`id,kept,cosine`, sorted."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Repeat._fields)
        writer.writerows(repeats)
