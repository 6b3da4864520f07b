"""What the figures of all pages have in common: size, colours for light and dark pages, plain axes, stable bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_IN = 5.4  # narrow, so that labels stay readable when a phone shows the whole figure
DPI = 150
ROW_LETTERS = 18  # of a row's name, in one line beside the axes
LINE_IN = 0.16  # of such a name
LEGEND_LETTERS, HANDLE_LETTERS = 56, 5  # that fit beside each other above axes, and of those what an entry's mark takes
# Okabe and Ito's colours, which colour-blind readers tell apart and which show on white and on near-black.
PALETTE = ("#999999", "#3b8fd0", "#e08214", "#1b9e77", "#cc79a7", "#d55e00", "#8c6bb1", "#b59b00")


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data."""

    ink: str
    faint: str
    page: str


LIGHT = Theme(ink="#24292f", faint="#d0d7de", page="#ffffff")
DARK = Theme(ink="#dfe5ec", faint="#3a434d", page="#161b22")


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """One colour a name, the same in every figure and in the page."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


@contextmanager
def canvas(theme: Theme, height_in: float, width_in: float = WIDTH_IN) -> Iterator[Figure]:
    """An empty figure in the page's colours; draw and `png` it inside the block."""
    settings = {
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a `$` in somebody's metric name is a dollar sign
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": theme.page,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.faint,
        "grid.linewidth": 0.5,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "figure.facecolor": theme.page,
    }
    with matplotlib.rc_context(settings):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def legend_above(axes: Axes, entries: int) -> None:
    """Entries in rows of at most four, fewer of long names, above the axes; nothing where nothing is labelled."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        own = [in_lines(name, 2 * ROW_LETTERS) for name in names]
        across = min(entries, _across(names))
        axes.legend(handles, own, loc="lower left", bbox_to_anchor=(0, 1), ncols=across, frameon=False, fontsize=9)


def further_rows_in(names: Sequence[str]) -> float:
    """How high the rows of a legend are, in inches, below its first, which every figure has room for."""
    across = _across(names)
    rows = [names[first : first + across] for first in range(0, len(names), across)]
    return sum(row_in((in_lines(name, 2 * ROW_LETTERS) for name in row), 0.0) for row in rows[1:])


def _across(names: Sequence[str]) -> int:
    """Entries beside each other: at most four, fewer of long names."""
    return max(1, min(4, LEGEND_LETTERS // (max(map(len, names), default=1) + HANDLE_LETTERS)))


def in_lines(name: str, letters: int = ROW_LETTERS) -> str:
    """A whole name in as many lines as it needs, broken after a blank, a hyphen or an underscore where it has one."""
    lines = [""]
    for part in re.findall(r"[^\s_-]*[\s_-]|[^\s_-]+", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > letters:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > letters:
            lines[-1:] = [lines[-1][:letters], lines[-1][letters:]]
    return "\n".join(line.rstrip() for line in lines)


def row_in(names: Iterable[str], least: float) -> float:
    """How high a row must be, in inches, for the one of these names with most lines; `least` for what it holds."""
    return max(least, LINE_IN * (1 + max((name.count("\n") for name in names), default=0)) + 0.06)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    # Without the Software entry the same numbers give the same bytes whatever the matplotlib version says of itself.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
