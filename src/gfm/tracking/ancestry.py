"""What the store knows of a version's origin: the runs that made it and its parents, and those that fine-tuned it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gfm.tracking import pipeline_run
from gfm.tracking.registry import NO_PARENTS
from gfm.tracking.runs import ENCODER_TAG
from gfm.tracking.versions import Registry, Version

NOT_RECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class Work:
    """One run and what it took; None: not measured, or the run is gone, as `method` says."""

    what: str
    run_id: str | None
    kwh: float | None
    kg_co2eq: float | None
    method: str  # how the energy is known
    grid: str  # by which intensity it became CO2eq; empty where that is not recorded
    pipeline: str | None = None  # the run above it
    ended: str | None = None  # UTC

    @property
    def measured(self) -> bool:
        return self.kwh is not None and self.kg_co2eq is not None


@dataclass(frozen=True, slots=True)
class Parent:
    """An encoder, or a file of weights, that a version was made from."""

    name: str
    origin: str | None  # supervised, imported, …
    made_from: str | None  # of an imported one: the weights
    work: Work


@dataclass(frozen=True, slots=True)
class Ancestry:
    """Everything behind a version."""

    version: Version
    parameters: Mapping[str, str]  # of the training that made it
    making: Work
    parents: list[Parent]
    finetunings: list[Work]  # that ended well, the newest first


def ancestry(registry: Registry, version: Version) -> Ancestry:
    """Gather it from the version's tags and the runs that they name."""
    run = _found(registry, version.run_id)
    tags = version.tags
    names = [name for name in tags.get("parents", NO_PARENTS).split(", ") if name != NO_PARENTS]
    return Ancestry(
        version=version,
        parameters=dict(sorted(run.data.params.items())) if run is not None else {},
        making=_work(f"making {tags.get('encoder', 'it')}", version.run_id, run),
        parents=[_parent(registry, tags, name) for name in names],
        finetunings=_finetunings(registry, version),
    )


def built_on(registry: Registry, prefix: str) -> list[Version]:
    """The versions whose data version (DVC's hash, or that of manifest or splits) begins with `prefix`."""
    keys = ("data.dvc", "data.manifest", "data.splits")
    return [
        version
        for version in registry.versions()
        if any(version.tags.get(key, "").lower().startswith(prefix.lower()) for key in keys)
    ]


def _parent(registry: Registry, tags: Mapping[str, str], name: str) -> Parent:
    run_id = tags.get(f"parents.{name}.run_id")
    run = None if run_id is None else _found(registry, run_id)
    return Parent(
        name, tags.get(f"parents.{name}.origin"), tags.get(f"parents.{name}.made_from"), _work(name, run_id, run)
    )


def _finetunings(registry: Registry, version: Version) -> list[Work]:
    runs = registry.client.search_runs(
        [registry.experiment],
        filter_string=f"attributes.status = 'FINISHED' and tags.`{ENCODER_TAG}` = '{version.run_id}'",
        order_by=["attributes.end_time DESC"],
        max_results=1000,
    )
    return [_work(str(run.info.run_name), str(run.info.run_id), run) for run in runs]


def _found(registry: Registry, run_id: str) -> Any | None:
    run = pipeline_run.find(registry.client, run_id)
    return run if run is not None and run.info.lifecycle_stage == "active" else None


def _work(what: str, run_id: str | None, run: Any | None) -> Work:
    if run is None:
        gone = "its run is no longer in the store" if run_id else "its run is not recorded"
        return Work(what, run_id, None, None, gone, "")
    metrics, tags = run.data.metrics, run.data.tags
    intensity = tags.get("energy.intensity_kg_per_kwh")
    source = ", ".join(filter(None, (tags.get("energy.country"), tags.get("energy.intensity_source"))))
    ended = run.info.end_time
    return Work(
        what,
        run_id,
        metrics.get("kwh"),
        metrics.get("kg_co2eq"),
        tags.get("energy.method", NOT_RECORDED),
        f"{float(intensity):.3f} kg CO2eq per kWh ({source})" if intensity and "kg_co2eq" in metrics else "",
        tags.get(pipeline_run.PARENT_TAG),
        None if not ended else datetime.fromtimestamp(ended / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
    )
