"""What a task's scores stand on: scores of different trainings compare only where it is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import xxhash
from pydantic import JsonValue

from gfm.evaluation.scores import TaskRun

# Of a task's settings: what does not change what a score means. More seeds give the same comparison more certainty.
INDIFFERENT = ("too_small", "variant_of", "geobench2")  # the first and the last stand in older records
INDIFFERENT_FINETUNE = ("seeds", "workers")


@dataclass(frozen=True, slots=True)
class Ground:
    """The ground of one task; None: not recorded, or not the same for all of its models."""

    metric: str
    index: str | None  # xxh3 of data/tasks/TASK.parquet as the fine-tunings read it
    settings: str | None  # xxh3 of the task's section in the parameters

    def as_dict(self) -> dict[str, JsonValue]:
        return asdict(self)


def grounds(runs: Sequence[TaskRun]) -> dict[str, Ground]:
    """The ground of every task, by the records of its fine-tunings."""
    found = {}
    for task in dict.fromkeys(run.task for run in runs):
        own = [_ground(run) for run in runs if run.task == task]
        found[task] = replace(
            own[0],
            index=_agreed(ground.index for ground in own),
            settings=_agreed(ground.settings for ground in own),
        )
    return found


def _ground(run: TaskRun) -> Ground:
    index, settings = run.record.get("index"), run.record.get("settings")
    return Ground(
        metric=run.primary_metric,
        index=str(index) if index else None,
        settings=_settings_hash(settings) if isinstance(settings, dict) else None,
    )


def _settings_hash(settings: dict[str, JsonValue]) -> str:
    kept = {key: value for key, value in settings.items() if key not in INDIFFERENT}
    finetune = kept.get("finetune")
    if isinstance(finetune, dict):
        kept["finetune"] = {key: value for key, value in finetune.items() if key not in INDIFFERENT_FINETUNE}
    return str(xxhash.xxh3_128_hexdigest(json.dumps(kept, sort_keys=True).encode()))


def _agreed(values: Iterable[str | None]) -> str | None:
    different = set(values)
    return different.pop() if len(different) == 1 else None
