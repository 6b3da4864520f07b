"""Commands that make, look with, adapt and carry encoders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gfm.cli.app import DEFAULT, ParamsFile, app, known, load_params
from gfm.errors import GfmError

if TYPE_CHECKING:
    from gfm.params import Params


def _known_pair(params: Params, task: str, model: str) -> None:
    from gfm.layout import ENCODERS

    known("tasks", task, params.tasks)
    if model not in {folder.name for folder in ENCODERS.glob("*")}:  # one that is there may be tried without comparing
        known("models", model, params.models)


def _numbers(option: str, text: str | None) -> list[float] | None:
    """Finite numbers of an option, between commas."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise GfmError(f"{option} {text}: give numbers between commas, for example 0.485,0.456,0.406")
    return numbers


@app.command()
def teacher(params: ParamsFile = DEFAULT) -> None:
    """Make the frozen teacher: train the small supervised one, or import a timm model with its weights."""
    from gfm.pretraining.teacher import make_teacher

    make_teacher(load_params(params))


@app.command()
def encoder(
    name: Annotated[str, typer.Argument(help="An encoder of the parameters' section `encoders`.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Make an encoder from published weights that the parameters declare."""
    loaded = load_params(params)
    known("encoders", name, loaded.encoders)
    from gfm.pretraining.published_encoder import make_encoder

    make_encoder(loaded, name)


@app.command()
def untrained(params: ParamsFile = DEFAULT) -> None:
    """Describe the untrained student, the baseline that knows nothing."""
    from gfm.pretraining.untrained import describe_untrained

    describe_untrained(load_params(params))


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="A key of `pretrain` in the parameter file.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Pretrain a student on the collection from the frozen teacher."""
    loaded = load_params(params)
    known("pretrain", name, loaded.pretrain)
    from gfm.pretraining.run import pretrain

    pretrain(loaded, name)


@app.command()
def embed(
    name: Annotated[str, typer.Argument(help="An encoder in models/encoders, for example teacher.")] = "teacher",
    params: ParamsFile = DEFAULT,
) -> None:
    """Show the collection as an encoder sees it: a scatter of its images, their diversity, and which repeat others."""
    loaded = load_params(params)
    from gfm.evaluation.embedding import describe_embedding
    from gfm.pretraining.embed import embed

    embed(loaded, name)
    describe_embedding(loaded, name)


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint: .pth or safetensors.")],
    name: Annotated[str, typer.Argument(help="The new encoder's name, in models/encoders.")],
    licence: Annotated[str, typer.Option(help="Terms of the weights, as their publisher states them.")],
    architecture: Annotated[str | None, typer.Option(help="timm's name; not needed for a Swin.")] = None,
    family: Annotated[
        str | None, typer.Option(help="clay, dofa, prithvi, satlas, satmae or seco: whose keys it has.")
    ] = None,
    image_px: Annotated[int | None, typer.Option(min=1, help="Side of the images to fit it to.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="A Swin's window to fit it to, in cells.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of its input bands, in order: R,G,B.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each band, values in [0, 1].")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each band.")] = None,
    wavelengths: Annotated[str | None, typer.Option(help="Wavelength of each band, um.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres of ground a pixel, for Clay.")] = None,
    key: Annotated[str | None, typer.Option(help="The entry that holds the weights, where several do.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Start of the network's keys, where several networks are.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report of every key here too, as CSV.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an encoder of this name.")] = False,
) -> None:
    """Turn a published checkpoint into an encoder, with a report of what became of every key."""
    from gfm.pretraining.import_encoder import Input, import_encoder

    import_encoder(
        checkpoint,
        name,
        architecture=architecture,
        image_px=image_px,
        window=window,
        key=key,
        prefix=prefix,
        family=family,
        seen=Input(
            bands=None if bands is None else [band.strip() for band in bands.split(",")],
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            wavelengths_um=_numbers("--wavelengths", wavelengths),
            gsd_m=gsd,
        ),
        licence=licence,
        report=report,
        force=force,
    )


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="An encoder in models/encoders.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Write an encoder as a folder that timm loads without this project."""
    from gfm.models.encoder_export import export_encoder

    export_encoder(name, folder)


@app.command()
def finetune(
    task: Annotated[str, typer.Argument(help="A key of `tasks`.")],
    model: Annotated[str, typer.Argument(help="One of `models`.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Fine-tune one model on one task with every seed and test it once; search first where the task declares it."""
    loaded = load_params(params)
    _known_pair(loaded, task, model)
    from gfm.downstream.finetune import finetune

    finetune(loaded, task, model)


@app.command()
def search(
    task: Annotated[str, typer.Argument(help="A key of `tasks`.")],
    model: Annotated[str, typer.Argument(help="One of `models`.")],
    trials: Annotated[int | None, typer.Option(min=1, help="How many, instead of tasks.TASK.search.trials.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Search for learning rate and batch size on validation, as `gfm finetune` does where `search` is declared."""
    loaded = load_params(params)
    _known_pair(loaded, task, model)
    from gfm.downstream.search_task import search_task

    search_task(loaded, task, model, trials)


@app.command()
def predict(
    task: Annotated[str, typer.Argument(help="A key of `tasks`.")],
    model: Annotated[str, typer.Argument(help="One of `models`, fine-tuned on the task.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="GeoTIFFs, pictures, folders of them; change: BEFORE AFTER."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Annotated[int | None, typer.Option(help="Of the fine-tuning; without it the best on validation.")] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Of windows over a scene, share of their side.")
    ] = 0.25,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Of class maps: write each class's probability too.")
    ] = False,
    params: ParamsFile = DEFAULT,
) -> None:
    """Run a fine-tuned model over new scenes: georeferenced maps of any size, or a table of labelled images."""
    loaded = load_params(params)
    _known_pair(loaded, task, model)
    from gfm.downstream.prediction.predict import predict

    predict(loaded, task, model, inputs, out, seed=seed, overlap=overlap, probabilities=probabilities)
