"""A picture of what a model predicts on test samples, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
import xxhash

from gfm.downstream.data import Chips
from gfm.downstream.tasks.dense import IGNORED
from gfm.downstream.tasks.task import Batch, Panel, Picture, TaskModel

SAMPLES = 6
TELLING_SHARE = 0.02  # of the pixels, that a class needs to be seen
GREY = "#444444"
VERDICTS = {True: "#1a7f37", False: "#c1121f", None: GREY}  # right, wrong, neither
PANEL_INCHES = 2.0
CAPTION_LETTERS = 48  # of a line above a picture


def choose_samples(chips: Chips) -> list[int]:
    """Up to six samples by hash of their ids, those whose mask shows two classes or more first."""
    order = sorted(range(len(chips)), key=lambda number: xxhash.xxh3_64_hexdigest(chips.samples[number].id.encode()))
    if chips.spec.mask_px is None:
        return order[:SAMPLES]
    telling: list[int] = []
    for number in order:
        if len(telling) == SAMPLES:
            break
        mask = chips.target(number)
        scored = mask[mask != IGNORED].long()
        if int((torch.bincount(scored) > TELLING_SHARE * len(scored)).sum()) > 1:
            telling.append(number)
    return [*telling, *(number for number in order if number not in telling)][:SAMPLES]


def draw_predictions(path: Path, model: TaskModel, chips: Chips, device: torch.device, title: str) -> None:
    """Write predictions.png: one row a sample for maps (inputs, truth, prediction, error), a grid for labels."""
    numbers = choose_samples(chips)
    batch = chips.__getitems__(numbers)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model.predict(batch.to(device)).cpu()
    model.train(was_training)
    rows = [model.panels(_dates(batch, i), logits[i], batch.target[i]) for i in range(len(numbers))]
    ids = [chips.samples[number].id for number in numbers]
    legend = model.legend()
    if legend:
        _draw_maps(path, rows, ids, legend, title)
    else:
        _draw_labels(path, [row[0] for row in rows], title)


def _dates(batch: Batch, number: int) -> list[Picture]:
    """The dates that a sample has."""
    images = _as_rgb(batch.image[number].numpy())
    return list(images if batch.present is None else images[batch.present[number].numpy()])


def _as_rgb(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(dates, bands, H, W) -> (dates, H, W, 3): the first three bands, or the first one in grey."""
    chosen = image[:, [0, 1, 2]] if image.shape[1] >= 3 else image[:, [0, 0, 0]]
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))


def _draw_maps(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    ids: Sequence[str],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
    title: str,
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = len(rows[0])
    figure = Figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * (len(rows) + 0.55)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for panel, axis in zip(rows[0], axes[0], strict=True):
        axis.set_title(panel.caption, fontsize=10)
    for row, name, line in zip(rows, ids, axes, strict=True):
        for panel, axis in zip(row, line, strict=True):
            axis.imshow(panel.picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(_short(name), fontsize=7)
    handles = [
        Patch(facecolor=[value / 255 for value in colour], edgecolor=GREY, linewidth=0.5, label=name)
        for name, colour in legend
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), columns + 1), fontsize=8, frameon=False
    )
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def _draw_labels(path: Path, panels: Sequence[Panel], title: str) -> None:
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 * PANEL_INCHES * columns, 1.9 * PANEL_INCHES * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, panel in zip(axes, panels, strict=False):
        axis.imshow(panel.picture, interpolation="nearest")
        lines = [part for line in panel.caption.splitlines() for part in wrap(line, CAPTION_LETTERS)]
        axis.set_title("\n".join(lines), fontsize=8, color=VERDICTS[panel.verdict])
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
