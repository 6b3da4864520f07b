"""`gfm reap`: close the runs that killed processes left open, and say of every other open run why it stays."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gfm.params import Params
from gfm.progress import say
from gfm.tracking import pipeline_run
from gfm.tracking.owner import Owner, of_this_host, owner
from gfm.tracking.runs import RecordedRun, recording, sum_energy
from gfm.tracking.store import TrackingError, gone_is_an_error, open_store, working_folder_lock

DVC = Path(".dvc/tmp")


def reap(params: Params, run_ids: Collection[str] = ()) -> list[str]:
    """Close the experiment's open runs whose process is gone, and pipelines at which nothing works; returns their ids.

    With `run_ids` these are closed, whatever is known of their process but that it lives here: the way for runs of a
    machine or container that is no more. Raises TrackingError for a store that cannot be read, for ids that are not
    open runs of it, and for a run that a living process of this machine records.
    """
    if not recording(params):
        return []
    uri = params.tracking.uri
    with gone_is_an_error(uri), working_folder_lock():
        client, experiment = open_store(uri, params.tracking.experiment)
        running = list(
            client.search_runs([experiment], filter_string="attributes.status = 'RUNNING'", max_results=1000)
        )
        unknown = set(run_ids) - {run.info.run_id for run in running}
        if unknown:
            raise TrackingError(f"{sorted(unknown)[0]}: no open run of {params.tracking.experiment} in the store")
        # Stages before pipelines, which end as their stages did.
        running.sort(key=_is_pipeline)
        chosen = [run for run in running if not run_ids or run.info.run_id in run_ids]
        closed = []
        for run in chosen:
            why = _close(client, experiment, run, named=bool(run_ids))
            if why is None:
                closed.append(str(run.info.run_id))
            elif run_ids:
                raise TrackingError(f"{_name(run)}: {why}; stop it first")
            else:
                say(f"left open: {_name(run)}: {why}")
    if not running:
        say(f"{params.tracking.experiment}: no run is open")
    return closed


def _close(client: Any, experiment: str, run: Any, *, named: bool) -> str | None:
    """Close a run if it may be; returns why not."""
    whose = owner(run.data.tags)
    if whose is Owner.ALIVE:
        return f"{whose.value} (process {run.data.tags['gfm.pid']})"
    if _is_pipeline(run) and (whose is Owner.UNKNOWN or named):
        why = _busy(client, experiment, run, named=named)
        if why is None:
            say(f"closed: {_name(run)}: {_close_pipeline(client, experiment, run)}")
        return why
    if whose is Owner.GONE:
        if not pipeline_run.close_orphan(client, run):
            return "it was taken up again"
    elif named:
        pipeline_run.close_killed(client, run.info.run_id, "closed by `gfm reap`")
    else:
        return f"{whose.value}; `gfm reap {run.info.run_id}` closes it"
    say(f"closed: {_name(run)}")
    return None


def _busy(client: Any, experiment: str, run: Any, *, named: bool) -> str | None:
    """Why a pipeline's run is still needed, None where nothing works at it."""
    stages = pipeline_run.children(client, experiment, run.info.run_id)
    working = [stage for stage in stages if stage.info.status == "RUNNING"]
    if working:
        return f"its stage {working[0].info.run_name} is open"
    folder = run.data.tags.get(pipeline_run.FOLDER_TAG)
    if folder is not None and of_this_host(run.data.tags):
        return f"dvc is at work in {folder}" if _dvc_at_work(Path(folder)) else None
    return None if named else f"{Owner.ELSEWHERE.value}; `gfm reap {run.info.run_id}` closes it"


def _close_pipeline(client: Any, experiment: str, run: Any) -> str:
    """End a pipeline's run as its stages did; returns the words for it."""
    stages = pipeline_run.children(client, experiment, run.info.run_id)
    whole = bool(stages) and all(stage.info.status == "FINISHED" for stage in stages)
    recorded = RecordedRun(client, run.info.run_id)
    pipeline_run.forget_parent(run.info.run_id)
    sum_energy(recorded, experiment)
    if not whole:
        recorded.tags({pipeline_run.ERROR_TAG: "ended without `gfm evaluate`"})
    recorded.end("FINISHED" if whole else "KILLED")
    return f"its {len(stages)} stages have ended, and nothing works at it"


def _dvc_at_work(folder: Path) -> bool:
    """Whether a `dvc repro` runs in a folder: it holds DVC's lock, or its process is noted while a stage runs."""
    import psutil

    with contextlib.suppress(OSError), (folder / DVC / "lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    try:
        noted = json.loads((folder / DVC / "rwlock").read_text(encoding="utf-8"))
        holders = [
            entry["pid"]
            for uses in noted.values()
            for use in uses.values()
            for entry in (use if isinstance(use, list) else [use])
            if entry
        ]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return False
    return any(psutil.pid_exists(pid) for pid in holders)


def _is_pipeline(run: Any) -> bool:
    return bool(run.data.tags.get("gfm.kind") == "pipeline")


def _name(run: Any) -> str:
    return f"{run.info.run_name} ({run.info.run_id})"
