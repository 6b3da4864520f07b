"""Bring stages of a workspace up to date, below one tracking run; what every flow here does with stages of its own.

DVC decides what runs, Prefect when and where.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from alert import alert
from artifacts import publish
from gpus import gpus
from raw_data import RawDataChanged, check_raw_data, pull_raw_data
from stages import (
    RUN_VARIABLE,
    Outcome,
    PipelineError,
    choose_stages,
    gfm,
    log,
    reproduce,
    stop_stages,
)

# isort: split
# After the module that says where Prefect keeps its state.
from prefect import State
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

VALIDATION = "validate"
FINDINGS = Path("reports/validation_failed.json")  # what `gfm validate` leaves when it stops the chain
HOOKS = {"on_failure": [alert], "on_crashed": [alert]}  # of every flow here
Told = list[dict[str, str | float]]  # the outcomes


class ValidationFailed(PipelineError):
    """A critical finding of the validation."""

    state = "ValidationFailed"


def bring_up_to_date(
    workspace: str,
    stages: list[str] | None = None,
    *,
    force: bool = False,
    accept_new_data: bool = False,
    pull: bool = False,
    at_once: int | None = None,
) -> Told | State[None]:
    """Run stages in the order of dvc.yaml, those of one matrix side by side; a Failed state that names the reason.

    Args:
        workspace: the folder with params.yaml and dvc.yaml.
        stages: names of stages or of matrix groups; none: all.
        force: run the stages even when they are up to date.
        accept_new_data: record changed raw data in data.dvc; otherwise a change stops it.
        pull: get the raw data of data.dvc first.
        at_once: stages of one matrix that run at the same time; none: as many as GPUs, or one.
    """
    try:
        folder = Path(workspace).resolve()
        chosen = choose_stages(folder, stages)
        with only_flow_in(folder):
            if pull and not accept_new_data:
                pull_raw_data(folder)
            check_raw_data(folder, accept_new_data)
            outcomes = _run_recorded(folder, chosen, force, at_once or max(1, len(gpus())))
    except (RawDataChanged, ValidationFailed) as error:
        return Failed(name=error.state, message=str(error), data=error)
    skipped = [outcome.stage for outcome in outcomes if outcome.state == "up to date"]
    log().info("ran %d stages, up to date: %s", len(outcomes) - len(skipped), ", ".join(skipped) or "none")
    return [asdict(outcome) for outcome in outcomes]


def _run_recorded(folder: Path, chosen: list[str], force: bool, at_once: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    run_id = open_run(folder)
    try:
        for _, group in groupby(chosen, key=lambda stage: stage.partition("@")[0]):
            _run_side_by_side(list(group), folder, force, run_id, at_once, outcomes)
    except BaseException as error:
        run_id = close_run(folder, run_id, "FAILED" if isinstance(error, Exception) else "KILLED", str(error))
        reached = {outcome.stage for outcome in outcomes}
        outcomes += [Outcome(stage, "not reached", 0.0) for stage in chosen if stage not in reached]
        try:
            publish(outcomes, folder, run_id)
        except Exception:  # the alert is to name the stage that failed, not this
            logger = log()
            logger.exception("the artifacts of this run could not be left")
        raise
    run_id = close_run(folder, run_id, "FINISHED")
    publish(outcomes, folder, run_id)
    return outcomes


def _run_side_by_side(
    stages: list[str], folder: Path, force: bool, run_id: str | None, at_once: int, outcomes: list[Outcome]
) -> None:
    """Run independent stages, `at_once` at a time, and add what became of them; the first error, after all ended."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side_by_side = min(at_once, len(stages))
    threads = max(1, cores // side_by_side) if side_by_side > 1 else None
    errors: list[Exception] = []
    with ThreadPoolTaskRunner(max_workers=side_by_side) as runner:
        futures = {
            stage: runner.submit(
                reproduce.with_options(task_run_name=stage),
                {"stage": stage, "workspace": str(folder), "force": force, "run_id": run_id, "threads": threads},
            )
            for stage in stages
        }
        try:
            for stage, future in futures.items():
                try:
                    outcomes.append(future.result())
                except Exception as error:  # noqa: BLE001 - kept until the stages beside it have ended
                    outcomes.append(Outcome(stage, "failed", 0.0))
                    errors.append(_named(error, stage, folder))
        except BaseException:
            collected = {outcome.stage for outcome in outcomes}
            begun = [stage for stage, future in futures.items() if not future.wrapped_future.cancel()]
            outcomes += [Outcome(stage, "stopped", 0.0) for stage in begun if stage not in collected]
            stop_stages()
            raise
    if errors:
        raise errors[0]


def _named(error: Exception, stage: str, folder: Path) -> Exception:
    return ValidationFailed(str(error)) if stage == VALIDATION and (folder / FINDINGS).exists() else error


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
