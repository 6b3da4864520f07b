"""The `gfm` command: every command parses its options, loads the parameters and calls one function.

Heavy imports stay inside the commands, so that `gfm --help` is instant.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gfm.errors import GfmError

if TYPE_CHECKING:
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


def _load(path: Path) -> Params:
    from gfm.params import load

    return load(path)


@app.command()
def sample(folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("data/raw")) -> None:
    """Write the embedded sample imagery (the same bytes on every machine)."""
    from gfm.sample.write import write_sample

    write_sample(folder)


@app.command()
def check(params: ParamsFile = DEFAULT) -> None:
    """Check the parameter file and say what it describes."""
    loaded = _load(params)
    print(
        f"{params}: {len(loaded.geopile.sources)} sources, {len(loaded.pretrain)} pretrainings, "
        f"{len(loaded.tasks)} tasks x {len(loaded.models)} models"
    )


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

    assemble(_load(params))


@app.command()
def index(params: ParamsFile = DEFAULT) -> None:
    """List, check and split the labelled samples of every downstream task."""
    from gfm.downstream.index import index_tasks

    index_tasks(_load(params))


@app.command()
def split(params: ParamsFile = DEFAULT) -> None:
    """Split the collection by place and take out what leaks from the tasks' validation and test images."""
    from gfm.geopile.splits import split

    split(_load(params))


@app.command()
def validate(params: ParamsFile = DEFAULT) -> None:
    """Check collection and splits against the suites in expectations/; a critical finding stops the chain."""
    from gfm.geopile.validate import validate

    validate(_load(params))


@app.command()
def teacher(params: ParamsFile = DEFAULT) -> None:
    """Make the frozen teacher: train the small supervised one, or import a timm model with its weights."""
    from gfm.pretraining.teacher import make_teacher

    make_teacher(_load(params))


@app.command()
def untrained(params: ParamsFile = DEFAULT) -> None:
    """Describe the untrained student, the baseline that knows nothing."""
    from gfm.pretraining.untrained import describe_untrained

    describe_untrained(_load(params))


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="A key of `pretrain` in the parameter file.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Pretrain a student on the collection from the frozen teacher."""
    from gfm.pretraining.run import pretrain

    pretrain(_load(params), name)


@app.command()
def finetune(
    task: Annotated[str, typer.Argument(help="A key of `tasks`.")],
    model: Annotated[str, typer.Argument(help="One of `models`.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Fine-tune one model on one task with every seed and test it once."""
    from gfm.downstream.finetune import finetune

    finetune(_load(params), task, model)


@app.command()
def evaluate(params: ParamsFile = DEFAULT) -> None:
    """Write the results table, ARP with its interval, the plots and the HTML report."""
    from gfm.evaluation.evaluate import evaluate

    evaluate(_load(params))


@app.command()
def results(params: ParamsFile = DEFAULT) -> None:
    """Print the results table and where to look further."""
    from gfm.evaluation.table import print_results

    print_results(_load(params))


def main() -> None:
    """Run a command; an error meant for the user is its one line and exit code 2."""
    try:
        app(prog_name="gfm")
    except GfmError as error:
        print(f"gfm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
