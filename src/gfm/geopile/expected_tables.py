"""What `gfm validate` looks at: tables made of the stages' outputs, and the values that suites ask for by name.

Besides the columns on disk, tables carry columns that compare one output with another (`shard_bytes`,
`splits_of_place`, `shows_held_out`, …), so that suites stay plain lists of expectations on one column or two.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gfm.errors import DataError
from gfm.geopile.drift import drift_table, read_before, statistics
from gfm.geopile.source_shares import most_val_share, source_shares
from gfm.layout import COLLECTION, COLLECTION_SPLIT, LEAKS, MANIFEST, SHARDS, STATISTICS, manifests_without, task_index
from gfm.tracking.provenance import data_version

if TYPE_CHECKING:
    from gfm.params import Params

SUMMARY = COLLECTION / "summary.json"
ALL = "all"  # the row of the table `sources` that sums the others


@dataclass(frozen=True, slots=True)
class Subject:
    """A table to check, the values its suite may name by {"$PARAMETER": …}, and the files behind it."""

    table: pd.DataFrame
    parameters: dict[str, Any]
    files: str


def subjects(params: Params) -> dict[str, Subject]:
    """The tables by the name of their suite. DataError where an output is missing or cannot be read."""
    manifest = _table(MANIFEST, "gfm assemble")
    summary = _json(SUMMARY, "gfm assemble")
    splits = _table(COLLECTION_SPLIT, "gfm split")
    tasks = {name: _table(task_index(name), "gfm index") for name in params.tasks}
    return {
        "manifest": _manifest(params, manifest, summary),
        "sources": _sources(params, manifest, summary, splits),
        "splits": _splits(_every_image(manifest), splits, tasks),
        "tasks": _tasks(params, tasks),
        "task_files": _task_files(params),
        "drift": _drift(params, manifest),
    }


def _manifest(params: Params, manifest: pd.DataFrame, summary: dict[str, Any]) -> Subject:
    sizes = {path.relative_to(SHARDS).as_posix(): path.stat().st_size for path in sorted(SHARDS.rglob("*.tar"))}
    table = manifest.drop(columns="geometry", errors="ignore")
    if {"shard", "offset", "size"} <= set(table.columns):
        table = table.assign(shard_bytes=table["shard"].map(sizes), end=table["offset"] + table["size"])
    quality, validation = params.geopile.quality, params.validation
    parameters = {
        "images": summary.get("images"),
        "min_images": validation.min_images,
        "sources": sorted(params.geopile.sources),
        "min_px": quality.min_px,
        "min_entropy_bits": quality.min_entropy_bits,
        "min_contrast": quality.min_contrast,
        "min_sharpness": quality.min_sharpness,
        "max_nodata_share": quality.max_nodata_share,
        "max_cloud_share": 1.0 if quality.max_cloud_share is None else quality.max_cloud_share,
    }
    return Subject(table, parameters, MANIFEST.as_posix())


def _sources(params: Params, manifest: pd.DataFrame, summary: dict[str, Any], splits: pd.DataFrame) -> Subject:
    counts = {name: summary.get("sources", {}).get(name, {}) for name in params.geopile.sources}
    rows = manifest["source"].value_counts() if "source" in manifest else pd.Series(dtype=int)
    table = pd.DataFrame(
        {
            "id": list(counts),
            **{key: [count.get(key) for count in counts.values()] for key in ("met", "kept", "quarantined")},
            "rows": [int(rows.get(name, 0)) for name in counts],
        }
    )
    total = {"id": ALL, **{key: table[key].sum() for key in ("met", "kept", "quarantined", "rows")}}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    table["quarantined_share"] = (table["quarantined"] / table["met"].where(table["met"] > 0)).fillna(0.0)
    if {"source", "place", "split"} <= set(splits.columns):
        shares = source_shares(*(splits[name].tolist() for name in ("source", "place", "split")))
        by_name = {one.source: one.share for one in shares}
        table["val_share"] = table["id"].map(by_name).astype("float64")  # empty in the row of all
    parameters = {
        "source_rows": len(params.geopile.sources) + 1,
        "most_val_share": most_val_share(params.splits.val_share),
        "min_images_per_source": params.validation.min_images_per_source,
        "max_quarantined_share": params.validation.max_quarantined_share,
    }
    return Subject(table, parameters, SUMMARY.as_posix())


def _every_image(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest, and the images that only a manifest without some source has: a split covers them all."""
    others = [_table(path, "gfm assemble") for path in manifests_without()]
    if not others or "id" not in manifest:
        return manifest
    return pd.concat([manifest, *others], ignore_index=True).drop_duplicates("id")


def _splits(manifest: pd.DataFrame, splits: pd.DataFrame, tasks: dict[str, pd.DataFrame]) -> Subject:
    table = splits
    if "id" in splits and "id" in manifest:
        known = manifest.drop_duplicates("id").set_index("id")
        for name in ("source", "place"):
            table = table.assign(**{f"manifest_{name}": _mapped(table["id"], known, name)})
    if {"id", "place", "split"} <= set(splits.columns):
        kept = splits["split"] != "leak"
        with LEAKS.open(encoding="utf-8", newline="") as file:
            listed = {row["id"] for row in csv.DictReader(file)}
        held_out = _held_out_pixels(tasks)
        pixels = splits["id"].map(dict(zip(manifest["id"], manifest["pixel_hash"], strict=True)))
        table = table.assign(
            splits_of_place=splits.assign(split=splits["split"].where(kept))
            .groupby("place")["split"]
            .transform("nunique"),
            is_leak=(~kept).astype(int),
            listed_leak=splits["id"].isin(listed).astype(int),
            shows_held_out=(pixels.isin(held_out) & kept).astype(int),
        )
    return Subject(table, {"rows": len(manifest)}, COLLECTION_SPLIT.as_posix())


def _tasks(params: Params, tasks: dict[str, pd.DataFrame]) -> Subject:
    tables, samples = [], 0
    for name, index in tasks.items():
        meta = _json(task_index(name).with_suffix(".json"), "gfm index")
        samples += sum(meta.get("counts", {}).values())
        table = index.assign(task=name)
        if {"id", "place", "split", "pixel_hashes", "labels"} <= set(index.columns):
            classes = set(meta.get("classes", []))
            hashes = index["pixel_hashes"].map(_list).explode()
            owners = index.loc[hashes.index, "split"].groupby(hashes.to_numpy()).nunique()
            table = table.assign(
                key=name + "/" + index["id"],
                splits_of_task=index["split"].nunique(),
                splits_of_place=index.groupby("place")["split"].transform("nunique"),
                splits_of_pixels=hashes.map(owners).groupby(level=0).max(),
                unknown_labels=[len(set(_list(text)) - classes) for text in index["labels"]],
            )
        for column, kind in (("ground_of_held_out", "same_ground"), ("looks_like_held_out", "near_duplicates")):
            if kind in meta:  # an index without it was made by an older version: its suite then misses the column
                shown = {pair["sample"]: f"shows {pair['split']} {pair['held_out']}" for pair in meta[kind]["pairs"]}
                table = table.assign(**{column: index["id"].map(shown).astype(object)})
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    return Subject(whole, {"samples": samples, "tasks": sorted(params.tasks)}, task_index("*").as_posix())


def _task_files(params: Params) -> Subject:
    """How many files each task met and could not use; tasks of the same files count once, as the one they vary."""
    names = [name for name, task in params.tasks.items() if task.variant_of is None]
    counts = [_json(task_index(name).with_suffix(".json"), "gfm index") for name in names]
    columns = {key: [count.get(key) for count in counts] for key in ("met", "quarantined")}
    table = pd.DataFrame(columns, dtype="float64").assign(id=names)
    table["quarantined_share"] = (table["quarantined"] / table["met"]).round(4)
    limit = params.validation.max_quarantined_share
    return Subject(table, {"max_quarantined_share": limit}, task_index("*").with_suffix(".json").as_posix())


def _drift(params: Params, manifest: pd.DataFrame) -> Subject:
    _, before = read_before(STATISTICS, data_version()["manifest"])
    table = pd.DataFrame(drift_table(before, statistics(manifest)))
    numbers = [name for name in table.columns if name != "id"]
    validation = params.validation
    parameters = {
        "max_lost_share": validation.max_lost_share,
        "max_drift": validation.max_drift,
        "max_class_drift": validation.max_class_drift,
    }
    return Subject(table.astype(dict.fromkeys(numbers, "float64")), parameters, STATISTICS.as_posix())


def _held_out_pixels(tasks: dict[str, pd.DataFrame]) -> set[str]:
    found: set[str] = set()
    for index in tasks.values():
        if {"split", "pixel_hashes"} <= set(index.columns):
            rows = index.loc[index["split"].isin(["val", "test"]), "pixel_hashes"]
            found.update(value for text in rows for value in _list(text))
    return found


def _mapped(ids: pd.Series[Any], known: pd.DataFrame, column: str) -> pd.Series[Any]:
    return ids.map(known[column].to_dict()) if column in known else pd.Series(None, ids.index, dtype=object)


def _list(text: Any) -> list[Any]:
    """A JSON list; empty where the cell holds none."""
    return list(json.loads(text)) if isinstance(text, str) else []


def _table(path: Path, made_by: str) -> pd.DataFrame:
    table: pd.DataFrame = _read(pd.read_parquet, path, made_by)
    return table


def _json(path: Path, made_by: str) -> dict[str, Any]:
    return dict(_read(lambda file: json.loads(file.read_text(encoding="utf-8")), path, made_by))


def _read(reader: Callable[[Path], Any], path: Path, made_by: str) -> Any:
    try:
        return reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `{made_by}` first") from None
    except (OSError, ValueError) as error:  # what pyarrow and json raise for broken files
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); run `{made_by}` again") from None
