"""What a run leaves in Prefect's UI: the stages, the results table, the report's place and a link to MLflow."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import yaml

from stages import Outcome, gfm, log

# isort: split
from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.exceptions import MissingContextError

RESULTS = Path("reports/results.csv")
REPORT = Path("reports/report.html")
RESULTS_STAGE = "evaluate"  # writes them


def publish(outcomes: list[Outcome], folder: Path, run_id: str | None) -> None:
    """Leave the stages as an artifact of the flow's run, and the results table where this run brought it up to date."""
    try:
        get_run_logger()
    except MissingContextError:
        return  # called as a plain function: there is no run to hang them on
    where = f"{folder}, MLflow run {run_id}" if run_id else f"{folder}, nothing recorded in MLflow"
    log().info("%s", where)
    create_table_artifact(table=[asdict(outcome) for outcome in outcomes], key="stages", description=where)
    if run_id and (server := tracking_server(folder)):
        create_link_artifact(
            link=f"{server}/#/runs/{run_id}", link_text=f"MLflow run {run_id}", key="mlflow", description=where
        )
    fresh = any(item.stage == RESULTS_STAGE and item.state in ("ran", "up to date") for item in outcomes)
    if fresh and (folder / RESULTS).exists():
        report = folder / REPORT
        markdown = f"{results_markdown(folder)}\n\nReport: `{report}`, and among the artifacts of the MLflow run."
        create_markdown_artifact(markdown=markdown, key="results", description=where)


def results_markdown(folder: Path) -> str:
    """What `gfm results` prints, or the plain table where it cannot."""
    done = gfm(folder, "results")
    if done is not None and done.returncode == 0 and done.stdout.strip():
        return f"```\n{done.stdout.rstrip()}\n```"
    with (folder / RESULTS).open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tracking_server(folder: Path) -> str | None:
    """The address of the workspace's tracking server; None where runs are kept in a file, or not at all."""
    params = folder / "params.yaml"
    read = yaml.safe_load(params.read_text(encoding="utf-8")) if params.exists() else None
    tracking = read.get("tracking") if isinstance(read, dict) else None
    uri = tracking.get("uri") if isinstance(tracking, dict) else None
    return uri.rstrip("/") if isinstance(uri, str) and uri.startswith(("http://", "https://")) else None
