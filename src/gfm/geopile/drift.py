"""How a collection differs from the version that was validated before it: what each source lost, and what moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfm.errors import DataError
from gfm.output_file import write_whole

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("entropy_bits", "contrast", "sharpness", "gsd_m")
SHIFTS = (*(f"{measure}_shift" for measure in MEASURES), "classes_shift")
COLUMNS = ("id", "images_before", "images", "lost_share", *SHIFTS)
_LEAST_SPREAD = 0.02  # of the median: where all images measured the same, this much more or less is a shift of 1

Statistics = dict[str, dict[str, Any]]  # by source


def statistics(manifest: pd.DataFrame) -> Statistics:
    """Of each source: images, quartiles of MEASURES (null where none is known), shares of its classes."""
    if "source" not in manifest:
        return {}
    return {str(name): _of_source(rows) for name, rows in manifest.groupby("source")}


def drift_table(before: Statistics, now: Statistics) -> dict[str, list[Any]]:
    """COLUMNS, a row for every source of the version before; no row where there is none.

    A shift of a measure is how far its median moved, in quartile distances (q3 - q1) of the version before; that of
    the classes is the share of images that would have to change class (total variation distance, 0 to 1). None where
    one of the versions says nothing.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for source, old in sorted(before.items()):
        new = now.get(source, {"images": 0, "quartiles": {}, "classes": {}})
        row: dict[str, Any] = {
            "id": source,
            "images_before": old["images"],
            "images": new["images"],
            "lost_share": max(0.0, round(1 - new["images"] / max(old["images"], 1), 4)),
            "classes_shift": _classes_shift(old["classes"], new["classes"]),
        }
        for measure in MEASURES:
            row[f"{measure}_shift"] = _shift(old["quartiles"].get(measure), new["quartiles"].get(measure))
        for name, column in columns.items():
            column.append(row[name])
    return columns


def read_before(path: Path, manifest: str | None) -> tuple[str | None, Statistics]:
    """The hash and statistics of the version before that of the hash `manifest`; (None, {}) where none was validated.

    Validating one version again compares it with the same version before. DataError where the file is broken.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        part = record["before"] if record["manifest"] == manifest else record
        return (part["manifest"], dict(part["sources"])) if part else (None, {})
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); remove it: drift is then told from this version on"
        ) from None


def write_statistics(path: Path, manifest: str | None, now: Statistics, before: tuple[str | None, Statistics]) -> None:
    """Keep the statistics of this version, and those of the one before it."""
    old = {"manifest": before[0], "sources": before[1]} if before[1] else None
    record = {"manifest": manifest, "sources": now, "before": old}
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _of_source(rows: pd.DataFrame) -> dict[str, Any]:
    quartiles: dict[str, list[float] | None] = {}
    for measure in MEASURES:
        known = rows[measure].dropna().astype(float) if measure in rows else rows["source"].iloc[:0].astype(float)
        quartiles[measure] = known.quantile([0.25, 0.5, 0.75]).round(4).tolist() if len(known) else None
    labels = rows["label"].value_counts(normalize=True).to_dict() if "label" in rows else {}
    classes = {str(label): round(float(share), 6) for label, share in sorted(labels.items())}
    return {"images": len(rows), "quartiles": quartiles, "classes": classes}


def _shift(old: list[float] | None, new: list[float] | None) -> float | None:
    if old is None or new is None:
        return None
    spread = max(old[2] - old[0], _LEAST_SPREAD * abs(old[1]), 1e-9)
    return round(abs(new[1] - old[1]) / spread, 4)


def _classes_shift(old: Mapping[str, float], new: Mapping[str, float]) -> float | None:
    if not old or not new:
        return None
    return round(sum(abs(old.get(name, 0) - new.get(name, 0)) for name in {*old, *new}) / 2, 4)
