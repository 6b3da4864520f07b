"""A pipeline's run that a caller of the stages (the Prefect flow, a script) opens before them and closes after them."""

from __future__ import annotations

from gfm.errors import GfmError
from gfm.params import Params
from gfm.progress import say
from gfm.tracking import pipeline_run
from gfm.tracking.owner import owner_tags
from gfm.tracking.pipeline_run import ERROR_TAG
from gfm.tracking.provenance import provenance
from gfm.tracking.runs import LONGEST_PARAM, RecordedRun, origin_tags, recording, sum_energy
from gfm.tracking.store import TrackingError, open_store, working_folder_lock

STATUSES = ("FINISHED", "FAILED", "KILLED")


def open_flow_run(params: Params, owner: int | None = None) -> str | None:
    """Open a run for stages that get its id as GFM_PIPELINE_RUN; None where nothing is recorded.

    `owner` is the process that will close it: once that is gone, the next stage that starts here closes it as KILLED.
    Raises TrackingError where the store cannot be reached.
    """
    if not recording(params):
        return None
    tags = {**origin_tags(provenance(None)), "gfm.kind": "pipeline"}
    if owner is not None:
        tags |= owner_tags(owner)
    with working_folder_lock():
        client, experiment = open_store(params.tracking.uri, params.tracking.experiment)
        for orphan in pipeline_run.close_orphans(client, experiment):
            say(f"tracking: closed the run {orphan} of a process that was killed")
        return str(client.create_run(experiment, run_name="pipeline", tags=tags).info.run_id)


def close_flow_run(params: Params, run_id: str, status: str, reason: str = "") -> bool:
    """Close such a run with the energy of its stages; False where it was deleted, because no stage recorded anything.

    Raises GfmError for an unknown status, TrackingError where the store has no such run.
    """
    if status not in STATUSES:
        raise GfmError(f"{status}: a run ends {', '.join(STATUSES[:-1])} or {STATUSES[-1]}")
    if not recording(params):
        return False
    with working_folder_lock():
        client, experiment = open_store(params.tracking.uri, params.tracking.experiment)
        pipeline_run.close_orphans(client, experiment)
    found = pipeline_run.find(client, run_id)
    if found is None:
        raise TrackingError(f"{run_id}: no such run in {params.tracking.uri}; give the id that `gfm open-run` printed")
    empty = not found.data.metrics and not pipeline_run.children(client, experiment, run_id)
    if empty and status == "FINISHED":
        client.delete_run(run_id)
        return False
    run = RecordedRun(client, run_id)
    sum_energy(run, experiment)
    if reason:
        run.tags({ERROR_TAG: reason[:LONGEST_PARAM]})
    run.end(status)
    return True
