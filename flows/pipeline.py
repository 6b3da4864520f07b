"""The pipeline as a Prefect flow: each task is `dvc repro -s STAGE`, DVC decides what runs, Prefect when and where.

`python flows/pipeline.py [--workspace DIR]` runs it here, without a server; prefect.yaml deploys it with a schedule.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "PREFECT_HOME": str(ROOT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
}
for _name, _value in SETTINGS.items():  # Prefect reads them when it is imported; what the user set stands
    os.environ.setdefault(_name, _value)

# ruff: noqa: E402
import argparse
import csv
import fcntl
import logging
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

LAST_LINES = 15  # of a failed stage, in the message
UP_TO_DATE = re.compile(r"didn't change, skipping|is cached - skipping run|Data and pipelines are up to date")
STAGES_FILE = "dvc.yaml"
RAW_DATA = "data.dvc"
RESULTS = Path("reports/results.csv")
RESULTS_STAGE = "evaluate"  # writes them
RUN_VARIABLE = "GFM_PIPELINE_RUN"  # names the tracking run above the stages; `gfm open-run` prints it


class PipelineError(Exception):
    """Why the pipeline stopped, in words for whoever gets the alert."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    stage: str
    state: str  # ran, up to date, failed, not reached
    seconds: float


@flow(name="pipeline")  # type: ignore[untyped-decorator]
def pipeline(
    stages: list[str] | None = None, workspace: str = ".", force: bool = False, accept_new_data: bool = False
) -> list[dict[str, str | float]]:
    """Bring a workspace up to date, stage by stage; stages that are up to date are skipped by DVC.

    Args:
        stages: names of stages or of matrix groups (`finetune`); none: all, in the order of dvc.yaml.
        workspace: the folder with params.yaml and dvc.yaml.
        force: run the stages even when they are up to date.
        accept_new_data: record changed raw data in data.dvc; otherwise a change stops the flow.
    """
    folder = Path(workspace).resolve()
    chosen = choose_stages(folder, stages)
    outcomes: list[Outcome] = []
    with only_flow_in(folder):
        check_raw_data(folder, accept_new_data)
        run_id = open_run(folder)
        try:
            for stage in chosen:
                outcomes.append(reproduce.with_options(task_run_name=stage)(stage, str(folder), force, run_id))
        except BaseException as error:
            run_id = close_run(folder, run_id, "FAILED" if isinstance(error, Exception) else "KILLED", str(error))
            failed, *missed = chosen[len(outcomes) :]
            outcomes += [Outcome(failed, "failed", 0.0), *(Outcome(stage, "not reached", 0.0) for stage in missed)]
            try:
                publish(outcomes, folder, run_id)
            except Exception:  # the alert is to name the stage that failed, not this
                logger = log()
                logger.exception("the artifacts of this run could not be left")
            raise
        run_id = close_run(folder, run_id, "FINISHED")
        publish(outcomes, folder, run_id)
    skipped = [outcome.stage for outcome in outcomes if outcome.state == "up to date"]
    log().info("ran %d stages, up to date: %s", len(outcomes) - len(skipped), ", ".join(skipped) or "none")
    return [asdict(outcome) for outcome in outcomes]


@task(name="dvc repro", cache_policy=NO_CACHE, persist_result=False)  # type: ignore[untyped-decorator]
def reproduce(stage: str, workspace: str, force: bool, run_id: str | None = None) -> Outcome:
    """Run `dvc repro -s STAGE`, its output line by line in the log; PipelineError with the last lines when it fails."""
    start = time.monotonic()
    lines: deque[str] = deque(maxlen=LAST_LINES)
    up_to_date = False
    flags = ["--force"] if force else []
    command = [sys.executable, "-m", "dvc", "repro", "-s", *flags, stage]
    with stage_process(command, Path(workspace), run_id) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                lines.append(line.rstrip())
                log().info("%s", lines[-1])
                up_to_date = up_to_date or bool(UP_TO_DATE.search(line))
        code = process.wait()
    if code != 0:
        raise PipelineError(f"stage {stage} failed (exit {code}) in {workspace}:\n" + "\n".join(lines))
    return Outcome(stage, "up to date" if up_to_date else "ran", round(time.monotonic() - start, 1))


def choose_stages(folder: Path, wanted: list[str] | None) -> list[str]:
    """The stages to run, in the order of dvc.yaml; a group's name stands for all its instances."""
    if not (folder / STAGES_FILE).exists():
        raise PipelineError(f"{folder}: has no {STAGES_FILE}; give the repository or a folder made by `gfm workspace`")
    known = dvc(folder, "stage", "list", "--name-only").split()
    if wanted is None:
        return known
    groups = {stage.partition("@")[0] for stage in known}
    for name in wanted:
        if name not in known and name not in groups:
            raise PipelineError(f"no stage {name} in {folder / STAGES_FILE}; there are {', '.join(known)}")
    return [stage for stage in known if stage in wanted or stage.partition("@")[0] in wanted]


def check_raw_data(folder: Path, accept: bool) -> None:
    """Stop where the raw data are not those of data.dvc: DVC itself would take a change in without a word."""
    if not (folder / RAW_DATA).exists() or dvc(folder, "status", "--json", RAW_DATA).strip() in ("", "{}"):
        return
    if not accept:
        raise PipelineError(
            f"the raw data in {folder} differ from {RAW_DATA}; go back with `dvc checkout {RAW_DATA}`, or take them in "
            f"with `dvc commit -f {RAW_DATA}` or the flow's parameter accept_new_data"
        )
    dvc(folder, "commit", "--force", RAW_DATA)
    log().warning("changed raw data taken in: %s now holds their hash; commit it with git", RAW_DATA)


def open_run(folder: Path) -> str | None:
    """Open the tracking run that the stages record below; None, with the reason in the log, where there is none.

    Whoever started the flow with a run of its own in GFM_PIPELINE_RUN closes that one.
    """
    given = os.environ.get(RUN_VARIABLE)
    return given or _run_id(gfm(folder, "open-run", "--owner", str(os.getpid())))


def close_run(folder: Path, run_id: str | None, status: str, reason: str = "") -> str | None:
    """Close it; returns its id, None where none is kept because no stage recorded anything."""
    if run_id is None or os.environ.get(RUN_VARIABLE):
        return run_id
    return _run_id(gfm(folder, "close-run", run_id, status, f"--reason={reason}"))


def _run_id(done: subprocess.CompletedProcess[str] | None) -> str | None:
    """The id that a command printed; what else it said goes to the log."""
    if done is None:
        log().warning("there is no gfm command beside %s: no tracking run above the stages", sys.executable)
        return None
    found = None
    for line in done.stdout.splitlines():
        if line.startswith(f"{RUN_VARIABLE}="):
            found = line.partition("=")[2]
        else:
            log().info("%s", line)
    if done.returncode != 0:
        log().warning("no tracking run above the stages: %s", done.stderr.strip())
    return found


def gfm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run a gfm command of this environment in a workspace; None where it is not installed."""
    program = Path(sys.executable).with_name("gfm")
    if not program.exists():
        return None
    command = [str(program), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())


def publish(outcomes: list[Outcome], folder: Path, run_id: str | None) -> None:
    """Leave the stages as an artifact of the flow's run, and the results table where this run brought it up to date."""
    try:
        get_run_logger()
    except MissingContextError:
        return  # called as a plain function: there is no run to hang them on
    where = f"{folder}, MLflow run {run_id}" if run_id else f"{folder}, nothing recorded in MLflow"
    log().info("%s", where)
    create_table_artifact(table=[asdict(outcome) for outcome in outcomes], key="stages", description=where)
    fresh = any(item.stage == RESULTS_STAGE and item.state in ("ran", "up to date") for item in outcomes)
    if fresh and (folder / RESULTS).exists():
        create_markdown_artifact(markdown=results_markdown(folder), key="results", description=where)


def results_markdown(folder: Path) -> str:
    """What `gfm results` prints, or the plain table where it cannot."""
    done = gfm(folder, "results")
    if done is not None and done.returncode == 0 and done.stdout.strip():
        return f"```\n{done.stdout.rstrip()}\n```"
    with (folder / RESULTS).open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def dvc(folder: Path, *arguments: str) -> str:
    """The output of a short DVC command; PipelineError with its own words when it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    if done.returncode != 0:
        raise PipelineError(f"dvc {' '.join(arguments)} failed in {folder}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@contextmanager
def stage_process(command: list[str], folder: Path, run_id: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a command that ends, with all that it started, when this block or this process does."""
    leader = [sys.executable, str(ROOT / "flows" / "stage_process.py"), str(os.getpid())]
    process = subprocess.Popen(
        [*leader, *command],
        cwd=folder,
        env=environment(run_id),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def environment(run_id: str | None = None) -> dict[str, str]:
    """For the stages: this environment's commands come first, output is not held back, DVC sends nothing."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    above = {RUN_VARIABLE: run_id} if run_id else {}
    return {**os.environ, **above, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "true"}


@contextmanager
def only_flow_in(folder: Path) -> Iterator[None]:
    """Hold the workspace: a second flow in it would find its stages busy half-way."""
    state = folder / ".gfm"
    state.mkdir(exist_ok=True)
    with (state / "flow.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                f"another run of the pipeline is at work in {folder}; wait for it or cancel it"
            ) from None
        yield


def log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's log; a plain one outside a run."""
    try:
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
        return logger
    except MissingContextError:
        return logging.getLogger("pipeline")


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring a workspace up to date, stage by stage.")
    parser.add_argument("stages", nargs="*", help="stages or groups of stages; none: all")
    parser.add_argument("--workspace", default=".", help="the folder with params.yaml and dvc.yaml")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date as well")
    parser.add_argument("--accept-new-data", action="store_true", help="record changed raw data in data.dvc")
    options = parser.parse_args()
    try:
        pipeline(options.stages or None, options.workspace, options.force, options.accept_new_data)
    except PipelineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
