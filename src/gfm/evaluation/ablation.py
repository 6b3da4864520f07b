"""Which pretrainings differ from a reference in exactly one setting, and what that setting is worth.

Told by what each run recorded of itself (run.json), never by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from gfm.evaluation.arp import RelativePerformance, UndefinedARP, relative_performance
from gfm.evaluation.assessment import Assessment
from gfm.evaluation.bootstrap import Interval, bootstrap_intervals
from gfm.evaluation.scores import primary_only
from gfm.params import Params, Pretraining

# How fast, how safely and how closely watched a run is, not what it learns.
INDIFFERENT = (
    "workers", "checkpoint_minutes", "checkpoint_steps", "keep_checkpoints", "compile", "checkpoint_activations",
    "sharding", "accumulate", "probe", "budget", "decoded_cache", "resize_on",
)  # fmt: skip
ABSENT = "none"


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting, as the reference has it and as a run has it."""

    key: str
    reference: str
    own: str


@dataclass(frozen=True, slots=True)
class Ablation:
    """A pretraining that differs in one setting, and its relative performance over the reference."""

    model: str
    difference: Difference
    performance: RelativePerformance | None  # None: not defined
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Ablations:
    """What is known beside the reference."""

    reference: str
    rows: list[Ablation]
    others: dict[str, list[str]]  # pretrainings that differ in more settings, or in none, and the keys of these
    unrecorded: list[str]  # pretrainings that did not record their settings


def ablations(
    params: Params, assessment: Assessment, results: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]
) -> Ablations | None:
    """Compare the compared pretrainings with `evaluate.reference`, by default the first of them.

    `records` are the encoders' run.json by name. None where there are fewer than two pretrainings to compare.
    """
    names = [name for name in params.models if name in params.pretrain]
    reference = params.evaluate.reference or (names[0] if names else "")
    if len(names) < 2 or reference not in names:
        return None
    recorded = {name: records[name].get("settings") for name in names}
    unrecorded = [name for name, settings in recorded.items() if not settings]
    rows, others = [], {}
    for name in names:
        if name == reference or name in unrecorded or reference in unrecorded:
            continue
        found = differences(recorded[reference] or {}, recorded[name] or {})
        if len(found) == 1:
            rows.append(Ablation(name, found[0], *_worth(params, assessment, results, reference, name)))
        else:
            others[name] = [difference.key for difference in found]
    return Ablations(reference, rows, others, unrecorded)


def differences(reference: Mapping[str, Any], own: Mapping[str, Any]) -> list[Difference]:
    """The settings in which two recorded pretrainings differ.

    Two recipes differ in one setting, the recipe: what only one of them has, and what both leave at their recipe's own
    default, is part of it.
    """
    recipes = str(reference.get("recipe", "")), str(own.get("recipe", ""))
    one, other = _flat(reference), _flat(own)
    defaults = [_flat(_defaults(recipe)) for recipe in recipes]
    found = []
    for key in dict.fromkeys([*one, *other]):
        if key.split(".")[0] in INDIFFERENT or one.get(key) == other.get(key):
            continue
        if recipes[0] != recipes[1] and key != "recipe":
            as_made = one.get(key) == defaults[0].get(key) and other.get(key) == defaults[1].get(key)
            if key not in one or key not in other or as_made:
                continue
        found.append(Difference(key, one.get(key, ABSENT), other.get(key, ABSENT)))
    return found


def _worth(
    params: Params, assessment: Assessment, results: pd.DataFrame, reference: str, name: str
) -> tuple[RelativePerformance | None, Interval | None]:
    """Average relative performance over the reference, on the tasks that ARP counts."""
    primary = primary_only(results, assessment.metrics)
    table = primary[primary["task"].isin(assessment.counted) & primary["model"].isin([reference, name])]
    try:
        performance = relative_performance(table, reference)[name]
    except UndefinedARP:
        return None, None
    own = params.evaluate
    intervals = bootstrap_intervals(
        table, reference, resamples=own.bootstrap, confidence=own.confidence, seed=params.seed
    )
    return performance, intervals.arp[name]


def _defaults(recipe: str) -> dict[str, Any]:
    section: Any = TypeAdapter(Pretraining).validate_python({"recipe": recipe})
    defaults: dict[str, Any] = section.model_dump(mode="json")
    return defaults


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted key, as text; a list is one setting."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if not isinstance(value, str) else value
    return flat
