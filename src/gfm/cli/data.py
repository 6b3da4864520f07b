"""Commands that make and check the collection and the tasks' samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfm.cli.app import DEFAULT, ParamsFile, app, load_params


@app.command()
def sample(folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("data/raw")) -> None:
    """Write the embedded sample imagery (the same bytes on every machine)."""
    from gfm.sample.write import write_sample

    write_sample(folder)


@app.command()
def workspace(
    config: Annotated[Path, typer.Argument(help="A whole parameter file, for example configs/field.yaml.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Make a folder that runs the same stages with another parameter file, apart from this one's state."""
    from gfm.workspace import make_workspace

    make_workspace(config, folder)


@app.command()
def assemble(params: ParamsFile = DEFAULT) -> None:
    """Build the pretraining collection from the declared sources."""
    from gfm.geopile.assemble import assemble
    from gfm.layout import MANIFEST
    from gfm.tracking.data_energy import account

    loaded = load_params(params)
    with account(loaded.carbon, "assemble", MANIFEST):
        assemble(loaded)


@app.command()
def index(params: ParamsFile = DEFAULT) -> None:
    """List, check and split the labelled samples of every downstream task."""
    from gfm.downstream.index import index_tasks

    index_tasks(load_params(params))


@app.command()
def split(params: ParamsFile = DEFAULT) -> None:
    """Split the collection by place and take out what leaks from the tasks' validation and test images."""
    from gfm.geopile.splits import split

    split(load_params(params))


@app.command()
def validate(params: ParamsFile = DEFAULT) -> None:
    """Check collection and splits against the suites in expectations/; a critical finding stops the chain."""
    from gfm.geopile.validate import validate

    validate(load_params(params))


@app.command()
def describe(params: ParamsFile = DEFAULT) -> None:
    """Write a page on the collection: sources, images, quality, classes, places, and what was left out."""
    from gfm.evaluation.describe import describe

    describe(load_params(params))
