"""`gfm lineage`: what a registered version was made from, by which code, with which energy, and what tested it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfm.errors import DataError, GfmError
from gfm.evaluation.columns import aligned
from gfm.output_file import write_whole
from gfm.progress import say
from gfm.tracking.amount import amount, co2eq

if TYPE_CHECKING:
    from gfm.params import Params
    from gfm.tracking.ancestry import Ancestry, Work
    from gfm.tracking.versions import Registry, Version

MISSING = "not recorded"
EDITED = {"true": "edited since: the commit alone does not tell which code ran", "false": "not edited"}


def print_lineage(params: Params, number: str | None, out: Path | None) -> None:
    """Print the lineage of a version (default: the champion, else the challenger); write it to `out` as JSON too."""
    from gfm.tracking.ancestry import ancestry
    from gfm.tracking.versions import CHALLENGER, CHAMPION, open_registry

    registry = open_registry(params)
    aliases = registry.aliases()
    wanted = number or aliases.get(CHAMPION) or aliases.get(CHALLENGER)
    if wanted is None:
        raise GfmError(
            f"{registry.name}: has neither {CHAMPION} nor {CHALLENGER}; name one of its versions "
            f"({', '.join(version.number for version in registry.versions())})"
        )
    found = described(registry, ancestry(registry, registry.version(wanted)), aliases)
    for line in lines(found):
        say(line)
    if out is not None:
        write_whole(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def print_built_on(params: Params, prefix: str, out: Path | None) -> None:
    """Print the versions that were built on the data whose hash begins with `prefix`; write them to `out` as JSON too.

    DataError where there is none.
    """
    from gfm.tracking.ancestry import built_on
    from gfm.tracking.versions import open_registry

    if not prefix.strip():
        raise GfmError("--data: give the beginning of a hash of the collection, its manifest or its splits")
    registry = open_registry(params)
    aliases = registry.aliases()
    versions = built_on(registry, prefix.strip())
    if not versions:
        raise DataError(
            f"{registry.name}: no version was built on data {prefix}; `gfm lineage VERSION` shows the hashes of one"
        )
    rows = [["version", "encoder", "commit", "data (DVC)", "manifest", "splits"]]
    for version in versions:
        tags = version.tags
        name = version.number + "".join(f" ({alias})" for alias in _own(aliases, version))
        hashes = [_short(tags.get(f"data.{part}")) for part in ("dvc", "manifest", "splits")]
        rows.append([name, tags.get("encoder", MISSING), _short(tags.get("git.commit")), *hashes])
    for line in aligned(rows):
        say(line)
    if out is not None:
        found = [{"version": version.number, "run_id": version.run_id, "data": _data(version)} for version in versions]
        write_whole(out, json.dumps(found, indent=1) + "\n")


def described(registry: Registry, found: Ancestry, aliases: dict[str, str]) -> dict[str, Any]:
    """The lineage as `--json` writes it; null where something is not recorded."""
    from gfm.tracking.champion import SINCE, UNTIL, approval

    tags = found.version.tags
    # Copying weights is not training: an imported parent that was not metered takes nothing from the sum.
    trained = [parent.work for parent in found.parents if parent.origin != "imported" or parent.work.measured]
    making = [found.making, *trained]
    unmeasured = [f"{work.what}: {work.method}" for work in [*making, *found.finetunings] if not work.measured]
    unmeasured += [
        f"{parent.name}: the training of {parent.made_from or 'its weights'}, which happened elsewhere"
        for parent in found.parents
        if parent.origin == "imported"
    ]
    return {
        "model": registry.name,
        "version": found.version.number,
        "aliases": _own(aliases, found.version),
        "champion": {"since": tags.get(SINCE), "until": tags.get(UNTIL), "approval": approval(found.version) or None},
        "encoder": tags.get("encoder"),
        "architecture": tags.get("architecture"),
        "origin": tags.get("origin"),
        "run_id": found.version.run_id,
        "pipeline_run_id": tags.get("pipeline_run_id"),
        "commit": tags.get("git.commit"),
        "dirty": {"true": True, "false": False}.get(tags.get("git.dirty", "")),
        "seed": tags.get("seed"),
        "data": _data(found.version),
        "licences": {"weights": tags.get("licence"), "data": tags.get("data.licences")},
        "parents": [
            {"name": parent.name, "origin": parent.origin, "made_from": parent.made_from, "run_id": parent.work.run_id}
            for parent in found.parents
        ],
        "energy": {
            "making": _spent(making),
            "finetuning": _spent(found.finetunings),
            "methods": sorted({work.method for work in [*making, *found.finetunings] if work.measured}),
            "grids": sorted({work.grid for work in [*making, *found.finetunings] if work.grid}),
            "not_measured": unmeasured,
        },
        "parameters": dict(found.parameters),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    aliases = "".join(f" ({alias})" for alias in found["aliases"])
    data, licences = found["data"], found["licences"]
    edited = EDITED[str(found["dirty"]).lower()] if found["dirty"] is not None else "whether it was edited is not known"
    pairs = [
        ("encoder", ", ".join(_text(found[key]) for key in ("encoder", "architecture", "origin"))),
        ("run", f"{found['run_id']}, pipeline {_text(found['pipeline_run_id'])}"),
        ("commit", f"{found['commit']}, {edited}" if found["commit"] else MISSING),
        ("seed", _text(found["seed"])),
        *((f"data, {name}", _text(data[key])) for key, name in (("dvc", "DVC"), ("manifest", "manifest"))),
        ("data, splits", _text(data["splits"])),
        *((f"parent {parent['name']}", _parent_line(parent)) for parent in found["parents"]),
        ("licence, weights", _text(licences["weights"])),
        ("licence, data", _text(licences["data"])),
        *_champion_pairs(found["champion"]),
    ]
    text = [f"{found['model']} version {found['version']}{aliases}", *_columns(pairs)]
    text += ["", *_energy_lines(found["energy"])]
    runs = found["energy"]["finetuning"]["runs"]
    text += ["", "Fine-tunings that scored it:" if runs else "Fine-tunings that scored it: none recorded"]
    text += _columns([(run["what"], f"{_text(run['ended'])}, run {run['run_id']}") for run in runs])
    parameters = found["parameters"]
    text += ["", "Parameters of its training:" if parameters else f"Parameters of its training: {MISSING}"]
    return [*text, *_columns(parameters.items())]


def _energy_lines(energy: dict[str, Any]) -> list[str]:
    rows = [["", "kWh", "CO2eq"]]
    for part, name in (("making", "it and its parents"), ("finetuning", "its fine-tunings")):
        spent = energy[part]
        rows += [[run["what"], amount(run["kwh"]), co2eq(run["kg_co2eq"])] for run in spent["runs"]]
        if spent["runs"]:
            rows.append([f"sum of {name}", amount(spent["kwh"]), co2eq(spent["kg_co2eq"])])
    return [
        *(f"  {line}" for line in aligned(rows)),
        *(f"Measured by: {method}" for method in energy["methods"]),
        *(f"Grid: {grid}" for grid in energy["grids"]),
        *(f"Not measured: {what}" for what in energy["not_measured"]),
    ]


def _spent(works: list[Work]) -> dict[str, Any]:
    """The runs with their sum, which is null as soon as one of them was not measured: a part of it misleads."""
    whole = bool(works) and all(work.measured for work in works)
    return {
        "runs": [asdict(work) for work in works],
        "kwh": sum(work.kwh or 0.0 for work in works) if whole else None,
        "kg_co2eq": sum(work.kg_co2eq or 0.0 for work in works) if whole else None,
    }


def _champion_pairs(champion: dict[str, Any]) -> list[tuple[str, str]]:
    if champion["since"] is None:
        return []
    until = f" until {champion['until']}" if champion["until"] else ""
    approval = champion["approval"] or {}
    told = [f"by {approval.get('by', MISSING)}", f"gate {approval.get('gate', MISSING)}"]
    arp = approval.get("arp")
    if arp:
        told.append(f"ARP {arp['value']:+.2f} % [{arp['low']:+.2f}, {arp['high']:+.2f}] over {approval['over']}")
    if approval.get("reason"):
        told.append(str(approval["reason"]))
    return [("champion", f"since {champion['since']}{until}"), ("approved", ", ".join(told))]


def _parent_line(parent: dict[str, Any]) -> str:
    made = f" from {parent['made_from']}" if parent["made_from"] else ""
    return f"{_text(parent['origin'])}{made}, run {_text(parent['run_id'])}"


def _data(version: Version) -> dict[str, str | None]:
    return {part: version.tags.get(f"data.{part}") for part in ("dvc", "manifest", "splits")}


def _own(aliases: dict[str, str], version: Version) -> list[str]:
    return [alias for alias, number in aliases.items() if number == version.number]


def _columns(pairs: Iterable[tuple[str, str]]) -> list[str]:
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"  {name.ljust(width)}  {value}" for name, value in listed]


def _text(value: object) -> str:
    return MISSING if value is None or value == "" else str(value)


def _short(value: str | None) -> str:
    return MISSING if value is None else value[:10]
