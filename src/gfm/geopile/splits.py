"""`gfm split`: which images pretrain, which measure the pretraining loss, which are taken out because they leak."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gfm.errors import DataError
from gfm.geopile.leakage import HOWS, Findings, Leak, find_leaks
from gfm.geopile.place_rule import place_splits
from gfm.geopile.shifted import COLUMNS as SHIFTED_COLUMNS
from gfm.geopile.shifted import shifted_leaks
from gfm.geopile.source_shares import SourceShare, source_shares, unevenness
from gfm.layout import COLLECTION_SPLIT, LEAKS, MANIFEST, SPLITS, TASKS, manifests_without, task_index
from gfm.output_folder import new_folder
from gfm.progress import say

if TYPE_CHECKING:
    from gfm.params import Params, Splits

Split = Literal["train", "val", "leak"]

_SHOWN = 5  # leaks printed; all are in leaks.csv

_MANIFEST_COLUMNS = ["id", "source", "place", "pixel_hash", "dhash", "west", "south", "east", "north"]
_TASK_COLUMNS = ["id", "split", "pixel_hashes", "dhashes", "west", "south", "east", "north"]


def split(params: Params) -> None:
    """Write data/splits from the manifest and every task's index.

    Raises DataError where one of them is missing or lacks a column.
    """
    manifest = _every_image(SHIFTED_COLUMNS if params.splits.find_shifted else [])
    missing = [name for name in params.tasks if not task_index(name).is_file()]
    if missing:
        raise DataError(f"{task_index(missing[0])}: no such file; run `gfm index`, so that leaks can be told")
    split_of = place_splits(manifest["place"], params.splits)  # before the long search: it may find a wrong name
    tasks = {path.stem: _columns(path, _TASK_COLUMNS, "gfm index") for path in sorted(TASKS.glob("*.parquet"))}
    findings = find_leaks(manifest, tasks, params.splits.leak_bits)
    if params.splits.find_shifted:
        known = {leak[:3] for leak in findings.leaks}  # by a stronger sign
        more = [leak for leak in shifted_leaks(params, manifest, tasks) if leak[:3] not in known]
        findings = replace(findings, leaks=sorted(findings.leaks + more))
    leaked = {leak.id for leak in findings.leaks}
    splits: list[Split] = [
        "leak" if image in leaked else split_of[place]
        for image, place in zip(manifest["id"], manifest["place"], strict=True)
    ]
    _write(manifest, splits, findings)
    _report(params.splits, manifest, splits, findings)


def _every_image(more_columns: list[str]) -> dict[str, list[Any]]:
    """The manifest's images, and those that only a manifest without some source has."""
    names = _MANIFEST_COLUMNS + more_columns
    manifest = _columns(MANIFEST, names, "gfm assemble")
    known = set(manifest["id"])
    for path in manifests_without():
        more = _columns(path, names, "gfm assemble")
        new = [row for row, image in enumerate(more["id"]) if image not in known]
        known.update(more["id"])
        for name, values in manifest.items():
            values += [more[name][row] for row in new]
    return manifest


def _columns(path: Path, names: list[str], made_by: str) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=names)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `{made_by}` first") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); run `{made_by}` again") from None
    lacking = [name for name in names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path}: has no column {', '.join(lacking)}; run `{made_by}` again")
    return {name: table.column(name).to_pylist() for name in names}


def _write(manifest: dict[str, list[Any]], splits: list[Split], findings: Findings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(manifest[name], pa.string()) for name in ("id", "source", "place")}
    table = pa.table({**columns, "split": pa.array(splits, pa.string())})
    with new_folder(SPLITS) as folder:
        pq.write_table(table.sort_by("id"), folder / COLLECTION_SPLIT.name, compression="zstd")
        with (folder / LEAKS.name).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(Leak._fields)
            rows.writerows(findings.leaks)
        summary = _summary(manifest, splits, findings)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _summary(manifest: dict[str, list[Any]], splits: list[Split], findings: Findings) -> dict[str, Any]:
    places: dict[str, set[str]] = {"train": set(), "val": set()}
    for place, part in zip(manifest["place"], splits, strict=True):
        if part != "leak":
            places[part].add(place)
    pairs = Counter(zip(manifest["source"], splits, strict=True))
    return {
        "images": {part: splits.count(part) for part in ("train", "val", "leak")},
        "places": {part: len(names) for part, names in places.items()},
        "sources": {
            source: {part: pairs[source, part] for part in ("train", "val", "leak")}
            for source in sorted(set(manifest["source"]))
        },
        "leaks": dict.fromkeys(HOWS, 0) | Counter(leak.how for leak in findings.leaks),
        "held_out_samples": findings.held_out,
        "held_out_samples_with_untelling_looks": findings.untelling,
    }


def _report(rule: Splits, manifest: dict[str, list[Any]], splits: Sequence[Split], findings: Findings) -> None:
    pairs = zip(manifest["source"], splits, strict=True)
    leaks = Counter(source for source, split in pairs if split == "leak")
    shares = source_shares(manifest["source"], manifest["place"], splits)
    whole = SourceShare("all")
    for one in shares:
        whole.train.update(one.train)
        whole.val.update(one.val)
    rows = [*((one, leaks[one.source]) for one in shares), (whole, leaks.total())]
    say(f"{'source':<24} {'train':>8} {'val':>8} {'leak':>8} {'val places':>16} {'val share':>9}")
    for one, leaked in rows:
        counts = f"{one.train.total():>8} {one.val.total():>8} {leaked:>8}"
        places = f"{len(one.val):,} of {len(one.train + one.val):,}"
        say(f"{one.source:<24} {counts} {places:>16} {'' if one.share is None else f'{one.share:.1%}':>9}")
    for line in unevenness(shares, rule):
        say(line)
    images = len({leak.id for leak in findings.leaks})
    say(
        f"leaks: {images} images show one of {findings.held_out} validation and test samples"
        + (f"; {findings.untelling} samples are too plain to compare by looks" if findings.untelling else "")
    )
    for leak in findings.leaks[:_SHOWN]:
        say(f"  {leak.id} = {leak.task} {leak.sample} ({leak.split}, by {leak.how})")
    if len(findings.leaks) > _SHOWN:
        say(f"  and {len(findings.leaks) - _SHOWN} more pairs: {LEAKS}")
