"""The report's figures of models and tasks: one colour per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gfm.evaluation.arp import RelativePerformance
from gfm.evaluation.bootstrap import Interval
from gfm.evaluation.canvas import PALETTE, Theme, canvas, further_rows_in, in_lines, legend_above, png, row_in


def arp_bars(
    performance: Mapping[str, RelativePerformance],
    intervals: Mapping[str, Interval | None],
    baseline: str,
    colours: Mapping[str, str],
    theme: Theme,
) -> bytes:
    """ARP of every model but the baseline (which is 0 by definition), with its interval where there is one."""
    models = [model for model in performance if model != baseline]
    names = [in_lines(model) for model in models]
    with canvas(theme, 0.9 + row_in(names, 0.45) * len(models)) as figure:
        axes = figure.add_subplot()
        for place, model in enumerate(models):
            value, interval = performance[model].arp, intervals.get(model)
            axes.barh(place, value, height=0.55, color=colours[model])
            if interval is not None:
                axes.plot([interval.low, interval.high], [place, place], color=theme.ink, linewidth=1.5)
            # In a column of their own, where no bar or interval can reach them.
            axes.annotate(
                f"{value:+.2f} %",
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(models)), names)
        axes.invert_yaxis()
        axes.set_xlabel(f"ARP over {baseline}, %")
        axes.margins(x=0.05)
        _zero_line(axes, theme)
        return png(figure)


def score_bars(
    scores: Mapping[str, float],
    intervals: Mapping[str, Interval | None],
    metric: str,
    span: tuple[float, float],
    colours: Mapping[str, str],
    theme: Theme,
) -> bytes:
    """The mean score of every model on one task, with its interval where there is one; the axis holds `span` too."""
    names = [in_lines(model) for model in scores]
    with canvas(theme, 0.9 + row_in(names, 0.36) * len(scores)) as figure:
        axes = figure.add_subplot()
        for place, (model, value) in enumerate(scores.items()):
            interval = intervals.get(model)
            axes.barh(place, value, height=0.6, color=colours[model])
            end = max(value, 0.0)
            if interval is not None:
                axes.plot([interval.low, interval.high], [place, place], color=theme.ink, linewidth=1.5)
                end = max(end, interval.high)
            axes.annotate(
                f"{value:.3f}", (end, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_yticks(range(len(scores)), names)
        axes.invert_yaxis()
        axes.set_xlabel(metric)
        axes.update_datalim([(end, 0) for end in span], updatey=False)
        axes.margins(x=0.16)
        _zero_line(axes, theme)
        return png(figure)


def contribution_bars(
    performance: Mapping[str, RelativePerformance], baseline: str, colours: Mapping[str, str], theme: Theme
) -> bytes:
    """What each task adds to each model's ARP: one group of bars a task."""
    models = [model for model in performance if model != baseline]
    tasks = list(performance[baseline].contributions)
    names = [in_lines(task) for task in tasks]
    with canvas(theme, 1.2 + further_rows_in(models) + len(tasks) * row_in(names, 0.2 + 0.2 * len(models))) as figure:
        axes = figure.add_subplot()
        height = 0.8 / max(len(models), 1)
        for number, model in enumerate(models):
            places = np.arange(len(tasks)) + (number - (len(models) - 1) / 2) * height
            values = [performance[model].contributions[task] for task in tasks]
            axes.barh(places, values, height=height * 0.9, color=colours[model], label=model)
        axes.set_yticks(range(len(tasks)), names)
        axes.invert_yaxis()
        axes.set_xlabel("contribution to ARP, percentage points")
        _zero_line(axes, theme)
        legend_above(axes, len(models))
        return png(figure)


def arp_against_carbon(
    points: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, Interval | None],
    baseline: str,
    colours: Mapping[str, str],
    theme: Theme,
) -> bytes:
    """ARP (percent) over CO2eq: `points` maps a model to (kg CO2eq, ARP)."""
    small = max(kg for kg, _ in points.values()) < 1
    unit, scale = ("g", 1000) if small else ("kg", 1)
    with canvas(theme, 3.1 + further_rows_in(list(points))) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=theme.faint, linewidth=1, zorder=0)
        for model, (kilograms, arp) in points.items():
            spent = kilograms * scale
            interval = intervals.get(model)
            if interval is not None and model != baseline:
                axes.plot([spent, spent], [interval.low, interval.high], color=colours[model], linewidth=1.5, alpha=0.6)
            axes.scatter([spent], [arp], s=55, color=colours[model], zorder=3, label=model)
        amounts = [kg for kg, _ in points.values()]
        if min(amounts) > 0 and max(amounts) > 20 * min(amounts):
            axes.set_xscale("log")
        axes.set_xlabel(f"{unit} CO2eq of training and fine-tuning")
        axes.set_ylabel(f"ARP over {baseline}, %")
        axes.margins(x=0.1, y=0.1)
        legend_above(axes, len(points))
        return png(figure)


def learning_curves(
    histories: Mapping[str, pd.DataFrame], metric: str, colours: Mapping[str, str], theme: Theme
) -> bytes:
    """Validation score and training loss of one task by epoch: the mean over seeds, each seed in a thin line.

    A panel that no history fills is left out; at least one history has a row.
    """
    columns = {"val_score": (f"validation {metric}", 2), "train_loss": ("training loss", 1)}
    shown = [name for name in columns if any(_has(history, name) for history in histories.values())]
    heights = [columns[name][1] for name in shown]
    with canvas(theme, 1.0 + further_rows_in(list(histories)) + sum(heights)) as figure:
        panels = figure.subplots(len(shown), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        for axes, column in zip(panels, shown, strict=True):
            axes.set_ylabel(columns[column][0])
            for model, history in histories.items():
                if not _has(history, column):
                    continue
                wide = history.pivot_table(index="epoch", columns="seed", values=column)
                if wide.shape[1] > 1:
                    axes.plot(wide.index, wide.to_numpy(), color=colours[model], linewidth=0.8, alpha=0.35)
                marker = "o" if len(wide) == 1 else None
                axes.plot(
                    wide.index, wide.mean(axis=1), color=colours[model], linewidth=1.9, label=model, marker=marker
                )
        _epochs(panels[-1])
        legend_above(panels[0], len(histories))
        return png(figure)


def training_curves(history: pd.DataFrame, names: Sequence[str], theme: Theme) -> bytes:
    """The losses `names` of one encoder's own training by epoch: a panel each, training and validation together."""
    with canvas(theme, 1.0 + 1.35 * len(names)) as figure:
        panels = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
        for axes, name in zip(panels, names, strict=True):
            for part, colour, style in (("train", PALETTE[1], "-"), ("val", PALETTE[2], "--")):
                column = f"{part}_{name}"
                if column in history and history[column].notna().any():
                    rows = history.dropna(subset=[column])
                    marker = "o" if len(rows) == 1 else None
                    axes.plot(rows["epoch"], rows[column], color=colour, linestyle=style, label=part, marker=marker)
            axes.set_ylabel(name.replace("_", " "))
        _epochs(panels[-1])
        legend_above(panels[0], 2)
        return png(figure)


def _has(history: pd.DataFrame, column: str) -> bool:
    return column in history and bool(history[column].notna().any())


def _epochs(axes: Axes) -> None:
    """Whole epochs below the last panel, also where there is one only."""
    axes.set_xlabel("epoch")
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _zero_line(axes: Axes, theme: Theme) -> None:
    axes.axvline(0, color=theme.ink, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
