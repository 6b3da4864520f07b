"""A picture of what the encoder holds to be alike: held-out images with their nearest training images."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from gfm.models.encoder import Encoder
from gfm.models.neighbours import nearest
from gfm.pretraining.collection import Rows
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset
from gfm.pretraining.features import pooled_features
from gfm.pretraining.pictures import sheet_row, sheet_side, sheet_titles, write_sheet

QUERIES = 6
NEAREST = 5
GALLERY = 500  # images among which neighbours are looked for


def spaced(rows: Rows, most: int) -> Rows:
    """At most so many rows, evenly spaced over all."""
    chosen = {index * len(rows) // most for index in range(most)} if len(rows) > most else set(range(len(rows)))
    return rows.where([index in chosen for index in range(len(rows))])


def draw_neighbours(
    encoder: Encoder, queries: CropDataset, gallery: CropDataset, path: Path, *, batch_size: int
) -> None:
    """Write a PNG with a row for each image of `queries`: itself, then its nearest of `gallery`, the nearest first.

    Alike is the cosine of the encoder's pooled last map over whole images.
    """
    among = F.normalize(pooled_features(encoder, gallery, batch_size=batch_size).float(), dim=1)
    _, found = nearest(pooled_features(encoder, queries, batch_size=batch_size), among, NEAREST)

    def image(images: CropDataset, row: int) -> torch.Tensor:
        return images[VALIDATION_EPOCH, row].image.float() / 255

    side = sheet_side(image(queries, 0).shape[-1])
    titles = ["held out", "nearest", *(f"{rank}." for rank in range(2, found.shape[1] + 1))]
    rows = [sheet_titles(titles, side)]
    for query, neighbours in enumerate(found.tolist()):
        shown = [image(queries, query), *(image(gallery, row) for row in neighbours)]
        rows.append(sheet_row(f"image {query + 1}", torch.stack(shown)))
    write_sheet(path, rows)
