"""The `gfm` command: every command parses its options, loads the parameters and calls one function.

Heavy imports stay inside the commands, so that `gfm --help` is instant.
"""

from __future__ import annotations

import math
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gfm.dvc_stage import stop_with_dvc
from gfm.errors import GfmError
from gfm.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

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
REFUSED = 3  # exit code of a gate that stays closed: 1 is a crash, 2 an error that the user can mend


def _load(path: Path) -> Params:
    from gfm.params import load
    from gfm.workspace import edited_since

    loaded = load(path)
    if remark := edited_since(path):
        typer.echo(f"note: {remark}", err=True)
    return loaded


def _known(key: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that the parameter file does not have, before anything heavy is loaded."""
    if name not in names:
        raise GfmError(f"{key} has no {name}; it has {', '.join(names) or 'none'}")


def _known_pair(params: Params, task: str, model: str) -> None:
    from gfm.layout import ENCODERS

    _known("tasks", task, params.tasks)
    if model not in {folder.name for folder in ENCODERS.glob("*")}:  # one that is there may be tried without comparing
        _known("models", model, params.models)


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
def sample(folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("data/raw")) -> None:
    """Write the embedded sample imagery (the same bytes on every machine)."""
    from gfm.sample.write import write_sample

    write_sample(folder)


@app.command()
def check(params: ParamsFile = DEFAULT) -> None:
    """Check the parameter file and say what it describes."""
    from gfm.downstream.requirements import check_requirements
    from gfm.geopile.first_files import check_first_files
    from gfm.progress import counted
    from gfm.raw_imagery import check_imagery
    from gfm.workspace import check_tracked

    loaded = _load(params)
    check_tracked(params, loaded)
    check_requirements(loaded)
    remarks = [check_imagery(loaded, params.parent)]
    if not remarks[0]:
        remarks += check_first_files(loaded, params.parent / loaded.paths.raw)
    from gfm.pretraining.network_check import check_networks  # torch: after what can be said without it

    remarks += check_networks(loaded, params.parent)
    published = f"{counted(len(loaded.encoders), 'published encoder')}, " if loaded.encoders else ""
    print(
        f"{params}: {counted(len(loaded.geopile.sources), 'source')}, "
        f"{published}{counted(len(loaded.pretrain), 'pretraining')}, "
        f"{counted(len(loaded.tasks), 'task')} x {counted(len(loaded.models), 'model')}"
    )
    for remark in filter(None, remarks):
        print(f"note: {remark}")


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

    loaded = _load(params)
    with account(loaded.carbon, "assemble", MANIFEST):
        assemble(loaded)


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
def describe(params: ParamsFile = DEFAULT) -> None:
    """Write a page on the collection: sources, images, quality, classes, places, and what was left out."""
    from gfm.evaluation.describe import describe

    describe(_load(params))


@app.command()
def teacher(params: ParamsFile = DEFAULT) -> None:
    """Make the frozen teacher: train the small supervised one, or import a timm model with its weights."""
    from gfm.pretraining.teacher import make_teacher

    make_teacher(_load(params))


@app.command()
def encoder(
    name: Annotated[str, typer.Argument(help="An encoder of the parameters' section `encoders`.")],
    params: ParamsFile = DEFAULT,
) -> None:
    """Make an encoder from published weights that the parameters declare."""
    loaded = _load(params)
    _known("encoders", name, loaded.encoders)
    from gfm.pretraining.published_encoder import make_encoder

    make_encoder(loaded, name)


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
    loaded = _load(params)
    _known("pretrain", name, loaded.pretrain)
    from gfm.pretraining.run import pretrain

    pretrain(loaded, name)


@app.command()
def embed(
    name: Annotated[str, typer.Argument(help="An encoder in models/encoders, for example teacher.")] = "teacher",
    params: ParamsFile = DEFAULT,
) -> None:
    """Show the collection as an encoder sees it: a scatter of its images, their diversity, and which repeat others."""
    loaded = _load(params)
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
        str | None, typer.Option(help="dofa, prithvi, satlas, satmae or seco: whose keys it has.")
    ] = None,
    image_px: Annotated[int | None, typer.Option(min=1, help="Side of the images to fit it to.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="A Swin's window to fit it to, in cells.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of its input bands, in order: R,G,B.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each band, values in [0, 1].")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each band.")] = None,
    wavelengths: Annotated[str | None, typer.Option(help="Wavelength of each band, um.")] = None,
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
    loaded = _load(params)
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
    loaded = _load(params)
    _known_pair(loaded, task, model)
    from gfm.downstream.search_task import search_task

    search_task(loaded, task, model, trials)


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


@app.command()
def arp(
    results: Annotated[Path, typer.Argument(help="CSV: model, task, metric, score and, with several, seed.")],
    baseline: Annotated[str, typer.Option(help="The model that the others are compared with.")],
    out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the figures here too.")] = None,
) -> None:
    """Average relative performance of any results table, with intervals and each task's contribution."""
    from gfm.evaluation.arp_file import arp_of_file

    arp_of_file(results, baseline, out)


@app.command()
def leaderboard(
    results: Annotated[list[Path], typer.Argument(help="Submissions to GEO-Bench-2: results_and_parameters.csv.")],
    normalizer: Annotated[Path, typer.Option(help="JSON: the worst and the best score of each data set.")],
    out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the scores here too.")] = None,
) -> None:
    """GEO-Bench-2's capability scores of submissions: bootstrapped interquartile means with their spread."""
    from gfm.evaluation.leaderboard import leaderboard

    leaderboard(results, normalizer, out)


@app.command()
def submission(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    board: Annotated[str, typer.Option(help="full: all weights were trained; frozen: the head alone.")] = "full",
    params: ParamsFile = DEFAULT,
) -> None:
    """Write the results of tasks that are GEO-Bench-2's (tasks.NAME.geobench2) as a submission to its leaderboard."""
    from gfm.evaluation.submission import write_submission

    if board not in ("full", "frozen"):
        raise GfmError(f"--board {board}: must be full or frozen")
    write_submission(_load(params), folder, board)  # type: ignore[arg-type]


@app.command()
def promote(
    version: Annotated[int | None, typer.Option(help="The version to judge; without it the challenger.")] = None,
    to: Annotated[int | None, typer.Option(help="Make this version champion without the gate: a way back.")] = None,
    reason: Annotated[str, typer.Option(help="Why, with --to; the version's record keeps it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and change nothing.")] = False,
    params: ParamsFile = DEFAULT,
) -> None:
    """Make the challenger the champion if it beats it on equal ground; else say why not and exit with 3."""
    from gfm.evaluation.promote import promote, set_champion

    if to is not None and version is not None:
        raise GfmError("--version asks the gate and --to passes it by; give one of them")
    if to is None and reason:
        raise GfmError("--reason is for --to, which passes the gate by; leave it out, or give --to VERSION")
    loaded = _load(params)
    if to is not None:
        set_champion(loaded, str(to), reason, dry_run=dry_run)
    elif not promote(loaded, None if version is None else str(version), dry_run=dry_run):
        raise typer.Exit(REFUSED)


@app.command()
def lineage(
    version: Annotated[int | None, typer.Argument(help="Default: the champion, else the challenger.")] = None,
    data: Annotated[str | None, typer.Option(metavar="HASH", help="List the versions built on this data.")] = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write it here too.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Say what a registered version was made from: data, code, parents, energy, licences, and what scored it."""
    from gfm.evaluation.version_lineage import print_built_on, print_lineage

    if data is not None and version is not None:
        raise GfmError("--data lists versions; give it or VERSION")
    if data is not None:
        print_built_on(_load(params), data, out)
    else:
        print_lineage(_load(params), None if version is None else str(version), out)


@app.command("open-run")
def open_run(
    owner: Annotated[int | None, typer.Option(help="The process that will close it; its death closes it too.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Open a tracking run above the stages to come and print its id as GFM_PIPELINE_RUN=ID, for their environment."""
    from gfm.tracking.flow_run import open_flow_run
    from gfm.tracking.pipeline_run import VARIABLE

    run_id = open_flow_run(_load(params), owner)
    if run_id is not None:
        print(f"{VARIABLE}={run_id}")


@app.command("close-run")
def close_run(
    run: Annotated[str, typer.Argument(help="The id that `gfm open-run` printed.")],
    status: Annotated[str, typer.Argument(help="FINISHED, FAILED or KILLED.")],
    reason: Annotated[str, typer.Option(help="Why it did not end well.")] = "",
    params: ParamsFile = DEFAULT,
) -> None:
    """Close such a run and print its id again, or delete it where no stage recorded anything."""
    from gfm.tracking.flow_run import close_flow_run
    from gfm.tracking.pipeline_run import VARIABLE

    if close_flow_run(_load(params), run, status, reason):
        print(f"{VARIABLE}={run}")


@app.command()
def reap(
    runs: Annotated[list[str] | None, typer.Argument(help="Ids of open runs whose machine is no more.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Close the tracking runs that killed processes left open; say of every other open run why it stays."""
    from gfm.tracking.reap import reap

    reap(_load(params), runs or ())


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A programming error's traceback, without the passwords that its words may hold."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def main() -> None:
    """Run a command; an error meant for the user is its one line and exit code 2."""
    sys.excepthook = _print_traceback
    stop_with_dvc()
    try:
        app(prog_name="gfm")
    except SystemExit as ended:
        # Lightning ends a training at SIGTERM by a SystemExit of its own without a code, which would pass for success.
        if ended.code is None and type(ended) is not SystemExit:
            print("gfm: stopped by SIGTERM before its end; run the same command again", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        raise
    except GfmError as error:
        print(f"gfm: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
