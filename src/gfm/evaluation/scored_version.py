"""The scores of a registered version, read from the newest finished pipeline run whose results hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.ground import Ground
from gfm.evaluation.scores import COLUMNS, primary_only
from gfm.tracking.scored import SCORED, last_scored
from gfm.tracking.versions import Registry, Version

ARP = "arp.json"


@dataclass(frozen=True)
class ScoredVersion:
    """A version's scores and what they stand on."""

    version: Version
    pipeline: str  # the run that scored it
    tags: Mapping[str, str]  # of that run
    model: str  # its name in that run's results
    results: pd.DataFrame  # of all models of that run: model, task, metric, score, seed; primary metrics only
    grounds: Mapping[str, Ground]  # by task

    def of(self, model: str) -> pd.DataFrame:
        """The scores of one of the run's models."""
        return self.results[self.results["model"] == model]


def read_scored(registry: Registry, version: Version) -> ScoredVersion:
    """The newest scores of a version; DataError naming the fix where there are none, or none that can be compared."""
    what = f"{registry.name} version {version.number}"
    run = last_scored(registry.client, registry.experiment, version.run_id)
    if run is None:
        raise DataError(
            f"{what}: no finished pipeline run of tracking.experiment has scored it; run `dvc repro -s -f evaluate` "
            f"where {layout.ENCODERS} holds its encoder (whose run.json names the run {version.run_id}), or "
            f"{taken_along(version)}"
        )
    pipeline, model = str(run.info.run_id), str(run.data.tags[f"{SCORED}{version.run_id}"])
    again = f"run {pipeline}, which scored {what}: {{problem}}; score it again with `dvc repro -s -f evaluate`"
    with TemporaryDirectory() as scratch:
        results = _table(_fetched(registry, pipeline, layout.RESULTS.name, Path(scratch), again), again)
        grounds = _grounds(_fetched(registry, pipeline, ARP, Path(scratch), again), again)
    lacking = {"metric of a task": set(results["task"]) - set(grounds), "row of it": {model} - set(results["model"])}
    for thing, names in lacking.items():
        if names:
            raise DataError(again.format(problem=f"its artifacts have no {thing} ({min(names)})"))
    metrics = {task: ground.metric for task, ground in grounds.items()}
    return ScoredVersion(version, pipeline, dict(run.data.tags), model, primary_only(results, metrics), grounds)


def taken_along(version: Version) -> str:
    """What a user writes to have a version scored beside the others, by the present tasks."""
    return (
        f"declare encoders.before = {{kind: registered, version: {version.number}}}, name `before` in models, "
        "then `dvc repro`"
    )


def _fetched(registry: Registry, run_id: str, name: str, folder: Path, again: str) -> Path:
    from mlflow.exceptions import MlflowException

    try:
        return Path(registry.client.download_artifacts(run_id, name, str(folder)))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(again.format(problem=f"its artifact {name} cannot be read ({reason})")) from None


def _table(path: Path, again: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=False)[COLUMNS]
        return table.astype({"model": str, "task": str, "metric": str, "score": float, "seed": int})
    except (ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors
        problem = f"its {path.name} is no results table ({' '.join(str(error).split())[:200]})"
        raise DataError(again.format(problem=problem)) from None


def _grounds(path: Path, again: str) -> dict[str, Ground]:
    try:
        tasks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        return {task: Ground(own["metric"], own["index"], own["settings"]) for task, own in tasks.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(again.format(problem=f"its {path.name} does not say what was scored on what")) from None
