"""A stage as a Prefect task: `dvc repro -s STAGE` as a process that ends with the flow, its output in the run's log.

Import this before Prefect: it says where Prefect keeps its state.
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
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.tasks import exponential_backoff

from gpus import one_gpu, takes_gpu

LAST_LINES = 15  # of a failed stage, in the message
STAGES_FILE = "dvc.yaml"
LOCK_FILE = "dvc.lock"
LOCK_WRITTEN_S = 2.0  # more than DVC takes to write it
RUN_VARIABLE = "GFM_PIPELINE_RUN"  # names the tracking run above the stages; `gfm open-run` prints it
UP_TO_DATE = re.compile(r"didn't change, skipping|is cached - skipping run|Data and pipelines are up to date")
# What a second try can mend: a process killed from outside (out of memory, a node that was taken away; trainings go on
# from their checkpoint), another DVC at work on the same files, a connection. A wrong file stays wrong.
PASSING = re.compile(
    r"exited with (-\d+|13[4-9]|14\d)\b|Unable to acquire lock|is busy, it is being blocked by"
    r"|[Cc]onnection (error|refused|reset|aborted|timed out)|[Cc]ould not connect|[Tt]imed out|[Tt]imeout"
    r"|[Nn]ame resolution|[Nn]ame or service not known|[Nn]etwork is unreachable|\b(429|50[0234]) "
)

_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


class PipelineError(Exception):
    """Why the pipeline stopped, in words for whoever gets the alert."""

    state = "Failed"  # the name of the run's last state


class PassingError(PipelineError):
    """A failure that may be gone at the next try."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    stage: str
    state: str  # ran, up to date, failed, stopped, not reached
    seconds: float


def may_pass(task: object, run: object, state: Any) -> bool:
    """Prefect's question before a retry."""
    return isinstance(state.data, PassingError)


@task(  # type: ignore[untyped-decorator]
    name="dvc repro",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=30),
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
)
def reproduce(
    stage: str, workspace: str, force: bool = False, run_id: str | None = None, threads: int | None = None
) -> Outcome:
    """Run `dvc repro -s STAGE`, its output line by line in the log; PipelineError with the last lines when it fails."""
    start = time.monotonic()
    folder = Path(workspace)
    # Stages beside this one hold DVC's lock only while they read and write its records.
    command = ["--wait-for-lock", "repro", "-s", *(["--force"] if force else []), stage]
    with ExitStack() as held:
        variables = held.enter_context(one_gpu()) if takes_gpu(stage, folder) else {}
        if threads is not None and "OMP_NUM_THREADS" not in os.environ:
            variables = {**variables, "OMP_NUM_THREADS": str(threads)}
        output = run_logged(command, folder, f"stage {stage}", run_id, variables)
    up_to_date = bool(UP_TO_DATE.search(output))
    return Outcome(stage, "up to date" if up_to_date else "ran", round(time.monotonic() - start, 1))


def run_logged(
    arguments: list[str], folder: Path, what: str, run_id: str | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run a DVC command with its output in the log, and return that; PipelineError with the last lines if it fails."""
    lines: list[str] = []
    if _stopping.is_set():
        raise PipelineError(f"{what}: not begun, the flow was told to stop")
    with stage_process([sys.executable, "-m", "dvc", *arguments], folder, run_id, variables) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                lines.append(line.rstrip())
                log().info("%s", lines[-1])
        code = process.wait()
    if code != 0:
        last = "\n".join(deque(lines, maxlen=LAST_LINES))
        passing = (killed(code) or PASSING.search(last)) and not _stopping.is_set()
        error = PassingError if passing else PipelineError
        raise error(f"{what} failed (exit {code}) in {folder}:\n{last}")
    return "\n".join(lines)


def killed(code: int) -> bool:
    """Whether an exit code is that of a process ended by a signal, itself or by way of a shell."""
    return code < 0 or 128 < code < 128 + signal.NSIG


def choose_stages(folder: Path, wanted: list[str] | None) -> list[str]:
    """The stages to run, in the order of dvc.yaml; a group's name stands for all its instances."""
    if not (folder / STAGES_FILE).exists():
        raise PipelineError(f"{folder}: has no {STAGES_FILE}; give the repository or a folder made by `gfm workspace`")
    known = _known_stages(folder)
    if wanted is None:
        return known
    groups = {stage.partition("@")[0] for stage in known}
    for name in wanted:
        if name not in known and name not in groups:
            raise PipelineError(f"no stage {name} in {folder / STAGES_FILE}; there are {', '.join(known)}")
    return [stage for stage in known if stage in wanted or stage.partition("@")[0] in wanted]


def _known_stages(folder: Path) -> list[str]:
    """The stages as DVC lists them; a dvc.lock over whose writing DVC was killed is set aside for it.

    DVC writes that file in place and refuses to read what a kill leaves of it. Without it the runs are found in its
    cache, and the file is written again.
    """
    listing = ("stage", "list", "--name-only")
    lock, aside = folder / LOCK_FILE, folder / ".gfm" / f"{LOCK_FILE}.cut-off"
    try:
        return dvc(folder, *listing).split()
    except PipelineError as error:
        # A conflict of git's is for a person to solve.
        if LOCK_FILE not in str(error) or not lock.is_file() or b"<<<<<<<" in lock.read_bytes():
            raise
    found = lock.read_bytes()
    time.sleep(LOCK_WRITTEN_S)
    if found == lock.read_bytes():  # else another DVC is writing it at this moment
        aside.parent.mkdir(exist_ok=True)
        lock.replace(aside)
        log().warning("%s was cut off, by a kill or a full disk: set aside as %s; DVC writes it again", lock, aside)
    return dvc(folder, *listing).split()


def dvc(folder: Path, *arguments: str) -> str:
    """The output of a short DVC command; PipelineError with its own words when it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    if done.returncode != 0:
        raise PipelineError(f"dvc {' '.join(arguments)} failed in {folder}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def gfm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run a gfm command of this environment in a workspace; None where it is not installed."""
    program = Path(sys.executable).with_name("gfm")
    if not program.exists():
        return None
    command = [str(program), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())


@contextmanager
def stage_process(
    command: list[str], folder: Path, run_id: str | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command that ends, with all that it started, when this block or this process does."""
    leader = [sys.executable, str(ROOT / "flows" / "stage_process.py"), str(os.getpid())]
    process = subprocess.Popen(
        [*leader, *command],
        cwd=folder,
        env={**environment(run_id), **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        _running.discard(process)
        if process.stdout is not None:
            process.stdout.close()


def stop_stages() -> None:
    """End every stage that runs in another thread, and begin no more: a cancelled flow would wait for their end."""
    _stopping.set()
    for process in list(_running):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


def environment(run_id: str | None = None) -> dict[str, str]:
    """For the stages: this environment's commands come first, output is not held back, DVC sends nothing."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    above = {RUN_VARIABLE: run_id} if run_id else {}
    return {**os.environ, **above, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "true"}


def log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's log; a plain one outside a run."""
    try:
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
        return logger
    except MissingContextError:
        return logging.getLogger("pipeline")
