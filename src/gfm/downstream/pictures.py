"""A picture of what a model predicts on test samples, for people to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

from gfm.downstream.classes import IGNORED
from gfm.downstream.data import Chips
from gfm.downstream.tasks.task import Batch, Panel, Picture, Scale, TaskModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = 6
CANDIDATES = 36  # of labelled images: predicted, so that right and wrong ones can be chosen
TELLING_SHARE = 0.02  # of the pixels, that a class needs to be seen
GREY = "#444444"
VERDICTS = {True: "#1a7f37", False: "#c1121f", None: GREY}  # right, wrong, neither
# A page shows a picture about 500 px wide, whatever it holds: letters are of a size that can be read there.
WIDTH_INCHES, DPI = 6.0, 180
POINTS, SMALL_POINTS = 10, 9
LETTERS_AN_INCH = 12  # small ones
LINE_INCHES = 0.17
BAR_INCHES = 0.12


def candidates(chips: Chips) -> list[int]:
    """Samples that may be shown, by hash of their ids, the most telling first.

    Those are, of masks, the samples of two classes or more; of labelled images one of each class, then a second of
    each, and so on. Of labelled images they are more than are shown: which of them the model gets right is not known
    before it has seen them.
    """
    order = sorted(range(len(chips)), key=lambda number: xxhash.xxh3_64_hexdigest(chips.samples[number].id.encode()))
    if chips.spec.mask_px is None:
        earlier: Counter[tuple[str, ...]] = Counter()
        ranks = []
        for number in order:
            labels = chips.samples[number].labels
            ranks.append(earlier[labels])
            earlier[labels] += 1
        return [number for _, number in sorted(zip(ranks, order, strict=True), key=lambda pair: pair[0])][:CANDIDATES]
    telling: list[int] = []
    for number in order:
        if len(telling) == SAMPLES:
            break
        mask = chips.target(number)
        scored = mask[mask != IGNORED].long()
        if int((torch.bincount(scored) > TELLING_SHARE * len(scored)).sum()) > 1:
            telling.append(number)
    return [*telling, *(number for number in order if number not in telling)][:SAMPLES]


def to_show(labels: Sequence[tuple[str, ...]], verdicts: Sequence[bool | None]) -> list[int]:
    """Up to six of these samples: as many classes as can be, and among them as many right as wrong predictions."""
    chosen: list[int] = []
    while len(chosen) < min(SAMPLES, len(labels)):
        seen, judged = Counter(labels[one] for one in chosen), Counter(verdicts[one] for one in chosen)
        left = [one for one in range(len(labels)) if one not in chosen]
        chosen.append(min(left, key=lambda one: (seen[labels[one]], judged[verdicts[one]])))
    return chosen


def draw_predictions(path: Path, model: TaskModel, chips: Chips, device: torch.device, title: str) -> None:
    """Write predictions.png: one row a sample for maps (inputs, truth, prediction, error), a grid for labels."""
    maps = bool(model.legend() or model.scales())
    numbers = candidates(chips)[: SAMPLES if maps else CANDIDATES]
    batch = chips.__getitems__(numbers)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model.predict(batch.to(device)).cpu()
    model.train(was_training)
    rows = [model.panels(_dates(batch, i), logits[i], batch.target[i]) for i in range(len(numbers))]
    ids = [chips.samples[number].id for number in numbers]
    if maps:
        _draw_maps(path, rows, ids, model, title)
    else:
        panels = [row[0] for row in rows]
        shown = to_show([chips.samples[number].labels for number in numbers], [panel.verdict for panel in panels])
        _draw_labels(path, [panels[one] for one in shown], title)


def _dates(batch: Batch, number: int) -> list[Picture]:
    """The dates that a sample has."""
    images = _as_rgb(batch.image[number].numpy())
    return list(images if batch.present is None else images[batch.present[number].numpy()])


def _as_rgb(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(dates, bands, H, W) -> (dates, H, W, 3): the first three bands, or the first one in grey."""
    chosen = image[:, [0, 1, 2]] if image.shape[1] >= 3 else image[:, [0, 0, 0]]
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))


def _draw_maps(path: Path, rows: Sequence[Sequence[Panel]], ids: Sequence[str], model: TaskModel, title: str) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = len(rows[0])
    side = WIDTH_INCHES / columns
    figure = Figure(figsize=(WIDTH_INCHES, side * len(rows) + 1.1), layout="constrained")
    # Bars of scales have a row of their own, so that the rows above stay level.
    bars = [BAR_INCHES / side] if model.scales() else []
    grid = figure.add_gridspec(len(rows) + len(bars), columns, height_ratios=[1.0] * len(rows) + bars)
    axes = [[figure.add_subplot(grid[row, column]) for column in range(columns)] for row in range(len(rows))]
    captions = [panel.caption for panel in rows[0]]
    for caption, axis in zip(captions, axes[0], strict=True):
        axis.set_title(caption, fontsize=POINTS)
    letters = int(0.85 * side * LETTERS_AN_INCH)  # the names themselves make the pictures smaller
    for row, name, line in zip(rows, ids, axes, strict=True):
        for panel, axis in zip(row, line, strict=True):
            axis.imshow(panel.picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(
            "\n".join(wrap(_short(name, 2 * letters), letters, break_on_hyphens=False)), fontsize=SMALL_POINTS
        )
    for scale in model.scales():
        own = [column for column, caption in enumerate(captions) if caption in scale.panels]
        _draw_scale(figure, figure.add_subplot(grid[-1, own[0] : own[-1] + 1]), scale)
    handles = [
        Patch(facecolor=[value / 255 for value in colour], edgecolor=GREY, linewidth=0.5, label=name)
        for name, colour in model.legend()
    ]
    if handles:
        longest = max(len(name) for name, _ in model.legend())
        across = max(1, int(WIDTH_INCHES * LETTERS_AN_INCH / (longest + 10)))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), across), fontsize=POINTS, frameon=False
        )
    figure.suptitle(title, fontsize=POINTS)
    figure.savefig(path, dpi=DPI)


def _draw_scale(figure: Figure, axes: Axes, scale: Scale) -> None:
    """A bar of colours that fills the axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ScalarMappable(Normalize(scale.low, scale.high), ListedColormap(scale.colours[0] / 255))
    bar = figure.colorbar(colours, cax=axes, orientation="horizontal")
    bar.set_ticks([scale.low, (scale.low + scale.high) / 2, scale.high])
    bar.ax.set_xticklabels([f"{tick:.3g}" for tick in bar.get_ticks()], fontsize=SMALL_POINTS)
    bar.set_label(scale.label, fontsize=POINTS)


def _draw_labels(path: Path, panels: Sequence[Panel], title: str) -> None:
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    side = WIDTH_INCHES / columns
    letters = int(side * LETTERS_AN_INCH)
    captions = [
        "\n".join(part for line in panel.caption.splitlines() for part in wrap(line, letters)) for panel in panels
    ]
    lines = max(caption.count("\n") + 1 for caption in captions)
    height = rows * (side + lines * LINE_INCHES) + 2 * LINE_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, panel, caption in zip(axes, panels, captions, strict=False):
        axis.imshow(panel.picture, interpolation="nearest")
        axis.set_title(caption, fontsize=SMALL_POINTS, color=VERDICTS[panel.verdict])
    figure.suptitle(title, fontsize=POINTS)
    figure.savefig(path, dpi=DPI)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"…{name[1 - letters :]}"
