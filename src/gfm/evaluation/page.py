"""Self-contained HTML pages: one style, templates beside this file, figures for light and for dark pages inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2

from gfm.evaluation.canvas import DARK, LIGHT, Theme
from gfm.evaluation.pictures import png_address


@dataclass(frozen=True)
class Drawn:
    """One figure, for light and for dark pages; `name` is its file's stem."""

    name: str
    title: str
    note: str
    light_png: bytes
    dark_png: bytes

    @property
    def light(self) -> str:
        return png_address(self.light_png)

    @property
    def dark(self) -> str:
        return png_address(self.dark_png)


def draw(name: str, title: str, note: str, figure: Callable[[Theme], bytes]) -> Drawn:
    """Draw a figure in both themes."""
    return Drawn(name, title, note, figure(LIGHT), figure(DARK))


def write_figures(folder: Path, figures: Iterable[Drawn]) -> None:
    """Each figure as NAME.png, as on a light page."""
    for figure in figures:
        (folder / f"{figure.name}.png").write_bytes(figure.light_png)


def render(template: str, **values: object) -> str:
    """The page as text; what `values` hold is escaped, and a name that a template lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gfm.evaluation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)
