"""The parent run of a pipeline, found again by the separate processes of its stages, and the runs killed below it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from gfm.output_file import write_whole
from gfm.redaction import redact
from gfm.tracking.owner import HOST, PID, Owner, owner
from gfm.tracking.store import STATE, TrackingError

VARIABLE = "GFM_PIPELINE_RUN"  # a run id set by whoever starts the stages; otherwise the file below names the run
FILE = STATE / "pipeline.json"
PARENT_TAG = "mlflow.parentRunId"
FOLDER_TAG = "gfm.folder"  # whose stages the run is for, until it is closed
ERROR_TAG = "error"  # why a run did not end well
STOPPED_TAG = "gfm.stopped"  # which limit ended a run before its end: budget


def parent_run(client: Any, uri: str, experiment_id: str, tags: dict[str, str]) -> str:
    """The id of the open pipeline run; a new one when none is open. Call it under the working folder's lock.

    Raises TrackingError when GFM_PIPELINE_RUN names a run that the store does not have.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if find(client, named) is None:
            raise TrackingError(f"{VARIABLE} = {named}: no such run in {uri}; unset it or give a run's id")
        return named
    open_id = open_parent(client, uri, experiment_id)
    if open_id is not None:
        return open_id
    where = {HOST: socket.gethostname(), FOLDER_TAG: str(Path.cwd())}
    run = client.create_run(experiment_id, run_name="pipeline", tags={**tags, **where, "gfm.kind": "pipeline"})
    _write({"run_id": run.info.run_id, "uri": redact(uri), "experiment_id": experiment_id})
    return str(run.info.run_id)


def open_parent(client: Any, uri: str, experiment_id: str) -> str | None:
    """The run that pipeline.json names, if it is of this store and still running."""
    noted = _noted()
    if noted.get("uri") != redact(uri) or noted.get("experiment_id") != experiment_id:
        return None
    run = find(client, str(noted["run_id"]))
    return str(run.info.run_id) if run is not None and run.info.status == "RUNNING" else None


def forget_parent(run_id: str) -> bool:
    """The next run starts a new pipeline; False where this one is not the open one. Call it under the lock."""
    if _noted().get("run_id") != run_id:
        return False
    FILE.unlink()
    return True


def close_orphans(client: Any, experiment_id: str) -> list[str]:
    """Close as KILLED the runs of this machine whose process is gone; returns their names."""
    mine = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{socket.gethostname()}'"
    running = client.search_runs([experiment_id], filter_string=mine, max_results=1000)
    return [str(run.info.run_name) for run in running if close_orphan(client, run)]


def close_orphan(client: Any, run: Any) -> bool:
    """Close a run as KILLED if its process is gone; False where it is not."""
    if owner(run.data.tags) is not Owner.GONE:
        return False
    # It may have been reopened since the search, from another working folder with another lock.
    now = find(client, run.info.run_id)
    if now is None or now.info.status != "RUNNING" or owner(now.data.tags) is not Owner.GONE:
        return False
    close_killed(client, run.info.run_id, f"process {run.data.tags[PID]} ended without closing its run")
    return True


def close_killed(client: Any, run_id: str, reason: str) -> None:
    """End a run as KILLED with the reason as its tag `error`."""
    client.set_tag(run_id, ERROR_TAG, reason)
    client.set_terminated(run_id, status="KILLED")


def children(client: Any, experiment_id: str, parent: str) -> list[Any]:
    """The runs directly below a pipeline run."""
    below = f"tags.`{PARENT_TAG}` = '{parent}'"
    return list(client.search_runs([experiment_id], filter_string=below, max_results=1000))


def find(client: Any, run_id: str) -> Any | None:
    """A run as the store has it, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: not an id at all
            return None
        raise


def _noted() -> dict[str, str]:
    """The content of pipeline.json; empty where there is none."""
    if not FILE.exists():
        return {}
    try:
        noted = json.loads(FILE.read_text(encoding="utf-8"))
    except ValueError:
        noted = None
    # Cut off by a crash of the machine: a new parent is made and the file written again.
    return noted if isinstance(noted, dict) else {}


def _write(noted: dict[str, str]) -> None:
    write_whole(FILE, json.dumps(noted, indent=1) + "\n")
