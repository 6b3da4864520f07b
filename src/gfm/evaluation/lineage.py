"""Where the numbers come from: code, data, seeds, hardware and versions of every run behind a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "not recorded"


@dataclass(frozen=True)
class Fact:
    """One property of the runs: its value where they agree, else each value with the runs that have it."""

    name: str
    values: list[tuple[str, list[str]]]  # (value, runs)

    @property
    def agreed(self) -> bool:
        return len(self.values) == 1


def facts(records: Mapping[str, Mapping[str, Any]]) -> list[Fact]:
    """What the provenance of every run (by name) says, one fact a key, in the order the runs first mention it."""
    flat = {run: _flatten(record) for run, record in records.items()}
    names = list(dict.fromkeys(name for entry in flat.values() for name in entry))
    found = []
    for name in names:
        values: dict[str, list[str]] = {}
        for run, entry in flat.items():
            if name in entry:
                values.setdefault(entry[name], []).append(run)
        found.append(Fact(name, list(values.items())))
    return found


def warnings(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes the runs less comparable than they look: several commits, uncommitted code, different data."""
    found = []
    # They saw the collection without one of its sources, which is meant to be another one.
    ablated = {run for run, record in records.items() if (record.get("data") or {}).get("without")}
    for fact in facts(records):
        last = fact.name.replace("_", ".").split(".")[-1]
        known = [(value, runs) for value, runs in fact.values if value != MISSING]
        if last == "commit":
            if len(known) > 1:
                listed = "; ".join(f"{value[:10]} ({_some(runs)})" for value, runs in known)
                found.append(
                    f"Results come from {len(known)} different commits: {listed}. `dvc repro -f STAGE` rebuilds."
                )
            for _, runs in (pair for pair in fact.values if pair[0] == MISSING):
                found.append(f"No commit is recorded for {_some(runs)}.")
        elif last == "dirty":
            for _, runs in (pair for pair in known if pair[0] == "yes"):
                found.append(
                    f"Uncommitted changes were in the working tree of {_some(runs)}: the commit alone does not tell "
                    "which code ran."
                )
        elif fact.name in ("data.dvc", "data.manifest", "data.splits"):
            if fact.name == "data.manifest":
                known = _but(ablated, known)
            if len(known) < 2:
                continue
            listed = "; ".join(f"{value[:10]} ({_some(runs)})" for value, runs in known)
            found.append(f"Runs saw different data, {fact.name.removeprefix('data.')}: {listed}.")
    return found


def _but(left_out: set[str], values: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    kept = [(value, [run for run in runs if run not in left_out]) for value, runs in values]
    return [(value, runs) for value, runs in kept if runs]


def _some(runs: list[str], most: int = 4) -> str:
    return ", ".join(runs[:most]) + (f" and {len(runs) - most} more" if len(runs) > most else "")


def _flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _text(value)
    return flat


def _text(value: object) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    return str(value)
