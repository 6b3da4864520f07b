"""A run that goes on: a training that resumes from its checkpoint records into the run that it began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gfm.progress import say
from gfm.tracking import pipeline_run
from gfm.tracking.owner import Owner, owner
from gfm.tracking.pipeline_run import ERROR_TAG, STOPPED_TAG
from gfm.tracking.store import TrackingError

RESUMES_TAG = "gfm.resumes"  # how often it was reopened; gfm.resume.N says after what and by which code


def reopen(client: Any, experiment_id: str, run_id: str, name: str, kind: str, tags: Mapping[str, str]) -> bool:
    """Set an interrupted run back to RUNNING with `tags`; call it under the lock, after `close_orphans`.

    False, said aloud, where there is nothing to continue: the store has no such run, or it ended well, and a new run
    is to begin. Raises TrackingError for a run of another experiment or stage, and for one that a living process of
    this machine records.
    """
    run = pipeline_run.find(client, run_id)
    if run is None or run.info.lifecycle_stage != "active":
        say(f"{name}: its run {run_id} is no longer in the tracking store: a new run begins")
        return False
    old = run.data.tags
    if run.info.experiment_id != experiment_id:
        raise TrackingError(
            f"{name}: its run {run_id} belongs to the experiment {run.info.experiment_id}, not {experiment_id}; "
            "set tracking.experiment back, or remove the checkpoint to begin anew"
        )
    if (old.get("gfm.kind"), run.info.run_name) != (kind, name):
        raise TrackingError(
            f"{name}: the run {run_id} beside its checkpoint is one of {old.get('gfm.kind')} {run.info.run_name}; "
            "remove the checkpoint to begin anew"
        )
    if run.info.status == "FINISHED":
        say(f"{name}: its run {run_id} is finished: a new run begins")
        return False
    if run.info.status == "RUNNING" and owner(old) is Owner.ALIVE:
        raise TrackingError(
            f"{name}: process {old.get('gfm.pid')} still records the run {run_id}; wait for it, or stop it"
        )
    count = int(old.get(RESUMES_TAG, "0")) + 1
    before = f"was {run.info.status} ({old.get(ERROR_TAG, 'no reason recorded')})"
    history = {RESUMES_TAG: str(count), f"gfm.resume.{count}": before}
    # The owner first: a run that is RUNNING under a dead owner would be closed by whoever looks next.
    for key, value in {**history, **tags}.items():
        client.set_tag(run_id, key, value)
    for tag in (ERROR_TAG, STOPPED_TAG):
        if tag in old:
            client.delete_tag(run_id, tag)
    client.update_run(run_id, status="RUNNING")
    return True
