"""The application, and what its commands share: the parameter file, and refusing what it does not name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gfm.errors import GfmError

if TYPE_CHECKING:
    from collections.abc import Collection

    from gfm.params import Params

app = typer.Typer(
    name="gfm",
    help="Geospatial foundation models by continual pretraining: data, teacher, student, tasks, results.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
DEFAULT = Path("params.yaml")


def load_params(path: Path) -> Params:
    """The checked parameters; a note where a workspace's file was edited at its origin since."""
    from gfm.params import load
    from gfm.workspace import edited_since

    loaded = load(path)
    if remark := edited_since(path):
        typer.echo(f"note: {remark}", err=True)
    return loaded


def known(key: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that the parameter file does not have, before anything heavy is loaded."""
    if name not in names:
        raise GfmError(f"{key} has no {name}; it has {', '.join(names) or 'none'}")
