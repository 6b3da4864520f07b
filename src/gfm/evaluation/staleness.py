"""Whether scores and report still belong to the parameters, encoders and task data that lie there now.

DVC knows it of its stages; this tells it also to who called `gfm finetune` or `gfm evaluate` by hand, or never asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import xxhash
from pydantic import JsonValue, ValidationError

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.ground import INDIFFERENT
from gfm.evaluation.scores import TaskRun, as_csv, read_runs, results_table
from gfm.models.encoder_file import CONFIG
from gfm.params import Params, Task
from gfm.tracking.provenance import content_hash

OF_NO_MATTER = ("paths", "tracking", "promotion", "embeddings")  # sections that no score depends on
MOST = 4  # runs that a line names


def parameter_digests(params: Params) -> dict[str, JsonValue]:
    """A hash of every section that the report depends on; what is left to defaults counts as not said."""
    sections = params.model_dump(mode="json", exclude_defaults=True)
    return {name: _digest(value) for name, value in sorted(sections.items()) if name not in OF_NO_MATTER}


def stale_scores(params: Params, runs: list[TaskRun]) -> list[str]:
    """What the fine-tunings were made of that has changed since; a run that does not record it is not judged."""
    changed: dict[str, list[str]] = {}
    for run in runs:
        for what in _changed(params, run):
            changed.setdefault(what, []).append(f"{run.task} {run.model}")
    return [f"{what} changed since {_some(names)} ran" for what, names in changed.items()]


def stale_report(params: Params, results: pd.DataFrame, digests: Mapping[str, str]) -> list[str]:
    """Why what `gfm evaluate` wrote is no longer what it would write; `digests` are those of its parameters."""
    now = parameter_digests(params)
    edited = [name for name in sorted({*now, *digests}) if digests and now.get(name) != digests.get(name)]
    reasons = [f"{', '.join(edited)} changed in the parameters since it was made"] if edited else []
    try:
        runs = read_runs(params)
    except DataError:  # scores that are not here, as where the reports alone were fetched, cannot be newer
        return reasons
    made = results.groupby(["task", "model"], sort=False)
    other = [
        f"{run.task} {run.model}"
        for run in runs
        if as_csv(results_table([run])) != as_csv(made.get_group((run.task, run.model)))
    ]
    if other:
        reasons.append(f"it lacks the newer scores of {_some(other)}")
    return reasons + stale_scores(params, runs)


def _changed(params: Params, run: TaskRun) -> list[str]:
    encoder = layout.encoder_folder(run.model) / CONFIG
    task = layout.task_index(run.task)
    there = {
        f"the encoder {run.model}": (run.record.get("encoder"), content_hash(encoder)),
        f"the samples of {run.task}": (run.record.get("index"), content_hash(task)),
    }
    changed = [what for what, (before, now) in there.items() if before and now and before != now]
    settings = _task(run.record.get("settings"))
    if settings is not None and settings != params.tasks[run.task].model_copy(update={"variant_of": None}):
        changed.insert(0, f"tasks.{run.task}")
    return changed


def _task(settings: Any) -> Task | None:
    """A task as a run recorded it; None where this version does not know all that it was told."""
    if not isinstance(settings, dict):
        return None
    try:
        return Task.model_validate({key: value for key, value in settings.items() if key not in INDIFFERENT})
    except ValidationError:
        return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def _digest(value: object) -> str:
    return str(xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode()))
