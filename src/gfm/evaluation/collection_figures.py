"""Figures of the collection: what each source's images measure, which classes they have, where they lie, what went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.ticker import Locator, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from gfm.evaluation.canvas import PALETTE, Theme, canvas, in_lines, legend_above, png, row_in
from gfm.evaluation.collection import SourceCounts

BINS = 48
CLASS_LETTERS = 30  # of a class, in one line
NAMED_CLASSES = 24  # more are drawn by rank, without names
CELL_DEGREES = 1.0  # of the world map: images in one cell are one dot
MOST_DOTS = 6000  # of the scatter of an embedding
REGION_DEGREES = 90.0  # what spans more than this shows on the world map alone

Values = NDArray[np.float64]
Points = NDArray[np.float64]  # (N, 2): longitude and latitude, degrees


def source_colours(sources: Sequence[str]) -> dict[str, str]:
    """One colour a source, the same in every figure and in the page; none is the grey of baselines."""
    return {source: PALETTE[1 + i % (len(PALETTE) - 1)] for i, source in enumerate(sources)}


def distributions(
    values: Mapping[str, Values],
    label: str,
    colours: Mapping[str, str],
    theme: Theme,
    *,
    log: bool = False,
    limit: float = 0.0,
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> bytes:
    """One histogram a source below each other over one axis, its median as a tick; `values` has at least one number.

    `limit` is drawn as a line where it is above 0. A span, the range that is declared for a source, is shaded; where
    all values of the source are the same, they only stand for it, and there is no bar.
    """
    spans = spans or {}
    edges = _edges(np.concatenate([*values.values(), *(np.array(span) for span in spans.values())]), log)
    names = {name: in_lines(name) for name in values}
    with canvas(theme, 0.75 + row_in(names.values(), 0.48) * len(values)) as figure:
        panels = np.atleast_1d(figure.subplots(len(values), 1, sharex=True))
        for axes, (name, found) in zip(panels, values.items(), strict=True):
            if name in spans:
                axes.axvspan(*spans[name], color=colours[name], alpha=0.22, linewidth=0)
            if len(found) and not (name in spans and found.min() == found.max()):
                heights, _ = np.histogram(np.clip(found, edges[0], edges[-1]), edges)
                axes.stairs(heights / heights.max(), edges, fill=True, color=colours[name])
            if len(found):
                median = max(float(np.median(found)), edges[0])
                axes.plot([median, median], [0, 1.12], color=theme.ink, linewidth=1.3)
            if limit > 0:
                axes.axvline(limit, color=theme.ink, linewidth=1, linestyle=":")
            axes.set(ylim=(0, 1.15), yticks=[], xlim=(edges[0], edges[-1]))
            if log:
                axes.set_xscale("log")
            axes.set_ylabel(names[name], rotation=0, ha="right", va="center", fontsize=9)
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="x", which="both", length=0)
        if log:
            panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panels[-1].xaxis.set_minor_formatter(lambda value, _: "")
        panels[-1].set_xlabel(label)
        return png(figure)


def class_bars(classes: Mapping[str, int], colour: str, theme: Theme) -> bytes:
    """Images of each class, most first: named bars, or an outline by rank where there are many."""
    counts = list(classes.values())
    if len(counts) > NAMED_CLASSES:
        with canvas(theme, 2.4) as figure:
            axes = figure.add_subplot()
            axes.stairs(counts, np.arange(len(counts) + 1) + 0.5, fill=True, color=colour)
            axes.set(xlabel="classes by size", ylabel="images", xlim=(0.5, len(counts) + 0.5), ylim=(0, None))
            axes.grid(axis="x", visible=False)
            return png(figure)
    names = [
        in_lines(name, CLASS_LETTERS) if _drawable(name) else f"class {rank}"
        for rank, name in enumerate(classes, start=1)
    ]
    with canvas(theme, 0.65 + row_in(names, 0.23) * len(counts)) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(counts)), counts, height=0.72, color=colour)
        axes.set_yticks(range(len(counts)), names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        return png(figure)


def kept_bars(counts: Sequence[SourceCounts], theme: Theme) -> bytes:
    """What became of each source's images: kept, or dropped by reason."""
    total: dict[str, int] = {}
    for count in counts:
        for reason, dropped in count.dropped.items():
            total[reason] = total.get(reason, 0) + dropped
    reasons = sorted((reason for reason in total if total[reason]), key=lambda reason: (-total[reason], reason))
    names = [in_lines(count.name) for count in counts]
    with canvas(theme, 0.95 + row_in(names, 0.34) * len(counts)) as figure:
        axes = figure.add_subplot()
        rows = np.arange(len(counts))
        left = np.zeros(len(counts))
        parts = [("kept", [count.kept for count in counts], PALETTE[1])]
        others = (PALETTE[2], PALETTE[5], PALETTE[4], PALETTE[6], PALETTE[7], PALETTE[3], PALETTE[0])
        for number, reason in enumerate(reasons):
            parts.append((reason, [count.dropped.get(reason, 0) for count in counts], others[number % len(others)]))
        for part, sizes, colour in parts:
            axes.barh(rows, sizes, left=left, height=0.62, color=colour, label=part)
            left += sizes
        for row, count in enumerate(counts):
            text = f"{count.kept:,}" + (f" of {count.images:,}" if count.left_out else "")
            axes.annotate(text, (left[row], row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(rows, names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.margins(x=0.2)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        legend_above(axes, len(parts))
        return png(figure)


def world_map(points: Mapping[str, Points], colours: Mapping[str, str], theme: Theme) -> bytes:
    """Footprints' centres on a graticule of longitude and latitude: a dot a cell of one degree, larger for more."""
    with canvas(theme, 3.2) as figure:
        axes = figure.add_subplot()
        for latitude, style in ((0, "-"), (23.44, ":"), (-23.44, ":"), (66.56, ":"), (-66.56, ":")):
            axes.axhline(latitude, color=theme.faint, linewidth=1.4, linestyle=style, zorder=0.5)
        axes.axvline(0, color=theme.faint, linewidth=1.4, zorder=0.5)
        for name, places in points.items():
            cells, counts = np.unique(np.floor(places / CELL_DEGREES), axis=0, return_counts=True)
            middle = (cells + 0.5) * CELL_DEGREES
            sizes = 26 + 14 * np.log10(counts)
            axes.scatter(
                middle[:, 0],
                middle[:, 1],
                s=sizes,
                color=colours[name],
                alpha=0.8,
                linewidths=0,
                label=name,
                zorder=3,
            )
        axes.set(xlim=(-180, 180), ylim=(-90, 90), aspect="equal")
        _as_map(axes, MultipleLocator(60), MultipleLocator(30))
        legend_above(axes, len(points))
        return png(figure)


def scatter(
    points: Mapping[str, Points], explained: tuple[float, float], colours: Mapping[str, str], theme: Theme
) -> bytes:
    """Images along two principal components (N, 2), in one random order, so that no source hides another."""
    names = [name for name, places in points.items() if len(places)]
    places = np.concatenate([points[name] for name in names])
    owners = np.repeat(np.arange(len(names)), [len(points[name]) for name in names])
    order = np.random.default_rng(0).permutation(len(places))[:MOST_DOTS]
    with canvas(theme, 4.6) as figure:
        axes = figure.add_subplot()
        axes.scatter(
            places[order, 0],
            places[order, 1],
            s=14 if len(order) < 2000 else 6,
            c=[colours[names[owner]] for owner in owners[order]],
            alpha=0.75,
            linewidths=0,
        )
        for name in names:
            axes.scatter([], [], s=26, color=colours[name], label=name)
        for set_label, which, share in ((axes.set_xlabel, "first", 0), (axes.set_ylabel, "second", 1)):
            set_label(f"{which} component, {100 * explained[share]:.0f} % of the variance")
        legend_above(axes, len(names))
        return png(figure)


def region(points: Mapping[str, Points]) -> tuple[float, float, float, float] | None:
    """The outline of the centres with a margin (west, south, east, north); None where they span half a world."""
    every = np.concatenate(list(points.values()))
    west, south = every.min(axis=0)
    east, north = every.max(axis=0)
    if max(east - west, north - south) > REGION_DEGREES:
        return None
    margin = max(0.08 * max(east - west, north - south), 0.005)
    return west - margin, max(south - margin, -90.0), east + margin, min(north + margin, 90.0)


def region_map(
    points: Mapping[str, Points],
    bounds: tuple[float, float, float, float],
    colours: Mapping[str, str],
    theme: Theme,
) -> bytes:
    """Footprints' centres within `bounds` (degrees), drawn true to distance at its middle, with a bar of kilometres."""
    west, south, east, north = bounds
    squeeze = max(math.cos(math.radians((south + north) / 2)), 0.05)
    height = (north - south) / max((east - west) * squeeze, 1e-9)
    with canvas(theme, min(max(4.6 * height + 0.8, 2.4), 4.4)) as figure:
        axes = figure.add_subplot()
        for name, places in points.items():
            axes.plot(
                places[:, 0],
                places[:, 1],
                ".",
                color=colours[name],
                alpha=0.75,
                markeredgewidth=0,
                label=name,
                zorder=3,
            )
        below = 0.1 * (north - south)  # for the bar
        axes.set(xlim=(west, east), ylim=(south - below, north), aspect=1 / squeeze)
        _as_map(axes, MaxNLocator(5), MaxNLocator(5))
        km_a_degree = 111.32 * squeeze
        length = _round_down((east - west) * km_a_degree / 4)
        start = west + 0.04 * (east - west), south - below / 2
        axes.plot([start[0], start[0] + length / km_a_degree], [start[1]] * 2, color=theme.ink, linewidth=2, zorder=4)
        axes.annotate(f"{length:g} km", start, xytext=(0, 4), textcoords="offset points", fontsize=8, zorder=4)
        legend_above(axes, len(points))
        return png(figure)


def _as_map(axes: Axes, longitudes: Locator, latitudes: Locator) -> None:
    """A frame, and degrees with their half of the Earth where the locators say."""
    for axis, locator, below, above in ((axes.xaxis, longitudes, "W", "E"), (axes.yaxis, latitudes, "S", "N")):
        axis.set_major_locator(locator)
        axis.set_major_formatter(partial(_degrees, below, above))
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.tick_params(length=0, labelsize=8)


def _whole_numbers() -> Locator:
    return MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True)


def _edges(values: Values, log: bool) -> Values:
    if log:
        positive = values[values > 0]
        low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
        low = max(low, high * 1e-6)  # a few images without any detail must not squeeze the others
        return np.geomspace(low / 1.1, high * 1.1, BINS + 1)
    low, high = values.min(), values.max()
    margin = max(0.03 * (high - low), 0.05)
    return np.linspace(max(low - margin, 0.0), high + margin, BINS + 1)


def _degrees(below: str, above: str, value: float, _: object) -> str:
    return f"{abs(value):.6g}°{above if value > 0 else below if value < 0 else ''}"


def _round_down(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


@lru_cache(maxsize=1)
def _font() -> Any:
    return font_manager.get_font(font_manager.findfont("DejaVu Sans"))


def _drawable(name: str) -> bool:
    """Whether the figures' font has every letter; others would be boxes."""
    return all(_font().get_char_index(ord(letter)) for letter in name)
