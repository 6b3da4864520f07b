"""Commands on registered versions and tracking runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfm.cli.app import DEFAULT, ParamsFile, app, load_params
from gfm.errors import GfmError

REFUSED = 3  # exit code of a gate that stays closed: 1 is a crash, 2 an error that the user can mend


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
    loaded = load_params(params)
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
        print_built_on(load_params(params), data, out)
    else:
        print_lineage(load_params(params), None if version is None else str(version), out)


@app.command("open-run")
def open_run(
    owner: Annotated[int | None, typer.Option(help="The process that will close it; its death closes it too.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Open a tracking run above the stages to come and print its id as GFM_PIPELINE_RUN=ID, for their environment."""
    from gfm.tracking.flow_run import open_flow_run
    from gfm.tracking.pipeline_run import VARIABLE

    run_id = open_flow_run(load_params(params), owner)
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

    if close_flow_run(load_params(params), run, status, reason):
        print(f"{VARIABLE}={run}")


@app.command()
def reap(
    runs: Annotated[list[str] | None, typer.Argument(help="Ids of open runs whose machine is no more.")] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """Close the tracking runs that killed processes left open; say of every other open run why it stays."""
    from gfm.tracking.reap import reap

    reap(load_params(params), runs or ())
