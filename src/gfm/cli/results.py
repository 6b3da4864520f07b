"""Commands that score and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfm.cli.app import DEFAULT, ParamsFile, app, load_params
from gfm.errors import GfmError


@app.command()
def evaluate(params: ParamsFile = DEFAULT) -> None:
    """Write the results table, ARP with its interval, the plots and the HTML report."""
    from gfm.evaluation.evaluate import evaluate

    evaluate(load_params(params))


@app.command()
def results(params: ParamsFile = DEFAULT) -> None:
    """Print the results table and where to look further."""
    from gfm.evaluation.table import print_results

    print_results(load_params(params))


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
    """Write the results of tasks that are GEO-Bench-2's (evaluate.geobench2) as a submission to its leaderboard."""
    from gfm.evaluation.submission import write_submission

    if board not in ("full", "frozen"):
        raise GfmError(f"--board {board}: must be full or frozen")
    write_submission(load_params(params), folder, board)  # type: ignore[arg-type]
