"""What the report says about the data: sources, quarantine, leaks, validation and task splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.parquet import read_schema

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.scores import read_record
from gfm.params import Params

SHOWN = 40  # rows of a list; the file behind it has them all


@dataclass(frozen=True)
class SourceCounts:
    """One source of the collection: `met` and `quarantined` count files, the rest images."""

    name: str
    met: int
    quarantined: int
    images: int
    dropped: dict[str, int]  # by reason
    kept: int
    licence: str

    @property
    def left_out(self) -> int:
        return sum(self.dropped.values())


@dataclass(frozen=True)
class Listing:
    """The first rows of a table and how many there are."""

    rows: list[dict[str, str]]
    total: int
    file: str

    @property
    def hidden(self) -> int:
        return self.total - len(self.rows)


@dataclass(frozen=True)
class Leaks:
    """What the guard took out of the collection."""

    rows: list[dict[str, str]]  # task, split, how, images
    images: int  # each once, however many samples it matches


@dataclass(frozen=True)
class Without:
    """The collection as it would be without one of its sources (`geopile.leave_out`)."""

    source: str
    images: int
    left_out: int  # images of the collection that it lacks
    returned: int  # images that the collection has dropped as copies of the source's


@dataclass(frozen=True)
class Duplicates:
    """Images that were dropped for one of `kept_source`."""

    source: str
    kept_source: str
    reason: str
    images: int


@dataclass(frozen=True)
class TaskSplit:
    """Samples and places of one task."""

    name: str
    kind: str
    classes: list[str]
    counts: dict[str, int]
    places: dict[str, list[str]]
    quarantined: int
    too_small: str
    notes: list[str]  # what the split left out, and classes that a part lacks


@dataclass(frozen=True)
class DataSection:
    """Everything the report shows about the data."""

    sources: list[SourceCounts]
    split: dict[str, int]  # images of the collection by split (train, val, leak)
    quarantine: Listing
    task_quarantine: Listing
    leaks: Leaks
    validation: dict[str, Any]
    tasks: list[TaskSplit]  # one a data set
    variants: list[str]  # which tasks share a data set, a line a set


def read_data(params: Params) -> DataSection:
    """Gather the data section from what `assemble`, `index`, `split` and `validate` wrote.

    Raises DataError naming a missing file and the stage that writes it.
    """
    repeated = _repeated(params)
    return DataSection(
        sources=read_sources(params),
        split=read_split(),
        quarantine=read_quarantine(),
        task_quarantine=_listing(layout.TASKS / "quarantine.csv", ["task", "file", "reason"], "index", repeated),
        leaks=read_leaks(params),
        validation=_validation(),
        tasks=[_task(params, name) for name in params.tasks if name not in repeated],
        variants=[
            f"{first} with its variants {', '.join(own)}"
            for first in params.tasks
            if (own := [name for name in repeated if params.tasks[name].variant_of == first])
        ],
    )


def read_sources(params: Params) -> list[SourceCounts]:
    """What became of each source's files and images, in the order of the parameters the collection was made with."""
    path = layout.COLLECTION / "summary.json"
    counts = read_record(path, "dvc repro assemble").get("sources")
    if not isinstance(counts, dict):
        raise DataError(f"{path}: has no counts per source; run `dvc repro -f assemble`")
    try:
        return [
            SourceCounts(
                name=name,
                met=int(row["met"]),
                quarantined=int(row["quarantined"]),
                images=int(row["images"]),
                dropped={str(reason): int(count) for reason, count in row["dropped"].items()},
                kept=int(row["kept"]),
                licence=params.geopile.sources[name].licence if name in params.geopile.sources else "",
            )
            for name, row in counts.items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: its counts are not as assemble writes them ({type(error).__name__}: {error}); "
            "run `dvc repro -f assemble`"
        ) from None


def read_manifest(columns: Sequence[str]) -> pd.DataFrame:
    """These columns of the manifest; DataError where it is missing, unreadable, or made before one of them was."""
    path = layout.MANIFEST
    try:
        lacking = sorted(set(columns) - set(read_schema(path).names))
        if not lacking:
            return pd.read_parquet(path, columns=list(columns))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro assemble`") from None
    except (OSError, ValueError) as error:  # what pyarrow raises for broken files
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); run `dvc repro -f assemble`"
        ) from None
    raise DataError(f"{path}: lacks {', '.join(lacking)}: an older version made it; run `dvc repro -f assemble`")


def read_split() -> dict[str, int]:
    """Images of the collection by split: train, val, leak."""
    path = layout.COLLECTION_SPLIT
    if not path.exists():
        raise DataError(f"{path}: no such file; run `dvc repro split`")
    table = pd.read_parquet(path, columns=["id", "split"])
    if layout.manifests_without():  # their images have a split too
        table = table[table["id"].isin(read_manifest(["id"])["id"])]
    counts = table["split"].value_counts()
    return {part: int(counts.get(part, 0)) for part in ("train", "val", "leak")}


def read_quarantine() -> Listing:
    """The collection's files that could not be used."""
    return _listing(layout.QUARANTINE, ["source", "file", "reason"], "assemble")


def read_leaks(params: Params) -> Leaks:
    """Images that show validation or test samples, by task (one a data set), split and how they were found."""
    table = read_table(layout.LEAKS, ["id", "task", "split", "how"], "split")
    table = table[~table["task"].isin(_repeated(params))]
    grouped = table.groupby(["task", "split", "how"])["id"].nunique().reset_index(name="images")
    rows = [{str(key): str(value) for key, value in row.items()} for row in grouped.to_dict("records")]
    return Leaks(rows, int(table["id"].nunique()))


def read_without(manifest: pd.DataFrame) -> list[Without]:
    """What the manifests of the collection without a source hold beside `manifest`, which has its ids."""
    ids = set(manifest["id"])
    found = []
    for path in layout.manifests_without():
        own = set(pd.read_parquet(path, columns=["id"])["id"])
        found.append(Without(path.stem, len(own), len(ids - own), len(own - ids)))
    return found


def read_duplicates() -> list[Duplicates]:
    """Copies by the source they were dropped from, that of the image kept in their place, and how alike they are."""
    table = read_table(layout.COLLECTION / "dropped.csv", ["source", "id", "reason", "kept"], "assemble")
    copies = table[table["kept"] != ""]
    copies = copies.assign(kept=copies["kept"].str.split("/", n=1).str[0])
    pairs = Counter(zip(copies["source"], copies["kept"], copies["reason"], strict=True))
    return [Duplicates(*pair, images) for pair, images in sorted(pairs.items())]


def _repeated(params: Params) -> list[str]:
    """Tasks whose data another one has too: variants, which the stages before list again."""
    return [name for name, task in params.tasks.items() if task.variant_of is not None]


def _validation() -> dict[str, Any]:
    record = read_record(layout.VALIDATION, "dvc repro validate")
    checks = record.get("checks", [])
    return {
        "success": bool(record.get("success")),
        "checks": len(checks),
        "passed": sum(bool(check.get("success")) for check in checks),
        "critical": [_sentence(entry) for entry in record.get("critical", [])],
        "warnings": [_sentence(entry) for entry in record.get("warnings", [])],
    }


def _sentence(entry: object) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{key}: {value}" for key, value in entry.items() if value not in (None, "", []))
    return str(entry)


def _task(params: Params, name: str) -> TaskSplit:
    record = read_record(layout.TASKS / f"{name}.json", "dvc repro index")
    return TaskSplit(
        name=name,
        kind=str(record.get("kind", params.tasks[name].kind)),
        classes=[str(value) for value in record.get("classes", [])],
        counts={part: int(record.get("counts", {}).get(part, 0)) for part in ("train", "val", "test")},
        places={part: [str(p) for p in record.get("places", {}).get(part, [])] for part in ("train", "val", "test")},
        quarantined=int(record.get("quarantined", 0)),
        too_small=params.evaluate.too_small.get(name, ""),
        notes=_notes(record),
    )


def _notes(record: Mapping[str, Any]) -> list[str]:
    absent = record.get("absent", {})
    notes = [
        f"no {', '.join(map(str, absent[part]))} in {part}" for part in ("train", "val", "test") if absent.get(part)
    ]
    copies = sum(int(count) for count in record.get("duplicates", {}).values())
    if copies:
        notes.append(f"{copies} {'copy' if copies == 1 else 'copies'} of held-out samples left out")
    overlaps = sum(int(count) for count in record.get("overlaps", {}).values())
    if overlaps:
        notes.append(f"{overlaps} on the ground of held-out samples left out")
    alike = sum(int(record.get("near_duplicates", {}).get(part, 0)) for part in ("train", "val"))
    if alike:
        notes.append(f"{alike} look like held-out samples")
    if record.get("split_by"):
        notes.append(f"split by {record['split_by']}")
    return notes


def _listing(path: Path, columns: list[str], stage: str, without_tasks: Sequence[str] = ()) -> Listing:
    table = read_table(path, columns, stage)
    if without_tasks:
        table = table[~table["task"].isin(without_tasks)]
    rows = [{str(key): str(value) for key, value in row.items()} for row in table.head(SHOWN).to_dict("records")]
    return Listing(rows, len(table), str(path))


def read_table(path: Path, columns: list[str], stage: str) -> pd.DataFrame:
    """These columns of a CSV of `stage`, as text; DataError where it is missing, no table, or lacks one."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro {stage}`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table ({' '.join(str(error).split())}); run `dvc repro -f {stage}`") from None
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise DataError(f"{path}: lacks the columns {', '.join(lacking)}; run `dvc repro -f {stage}`")
    return table[columns]
