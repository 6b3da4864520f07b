"""Split files that data sets are published with, where they lie beside the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gfm.downstream.formats.labels_file import PARTS
from gfm.downstream.sample import Refused, Scene
from gfm.downstream.split import Part
from gfm.errors import DataError

UC_MERCED = {part: f"uc_merced-{part}.txt" for part in ("train", "val", "test")}
BIGEARTHNET = "metadata.parquet"


@dataclass(frozen=True, slots=True)
class PublishedSplit:
    """The part of each sample by its name, and the files that say so."""

    parts: Mapping[str, Part]
    source: str

    def given(self, items: Sequence[Scene | Refused]) -> list[Scene | Refused]:
        """Scenes with their parts, those without one refused; unchanged where the files know none of them.

        Files that know none were published with another data set, which lies beside this one.
        """
        parts = [self._part(item) if isinstance(item, Scene) else None for item in items]
        if not any(parts):
            return list(items)
        why = f"stands in no part of the published split ({self.source})"
        return [
            item if isinstance(item, Refused) else replace(item, part=part) if part else Refused(item.inputs[0][0], why)
            for item, part in zip(items, parts, strict=True)
        ]

    def _part(self, scene: Scene) -> Part | None:
        """By the last name of its id."""
        name = PurePosixPath(scene.id)
        return self.parts.get(name.name) or self.parts.get(name.stem)


def uc_merced_split(root: Path, raw: Path) -> PublishedSplit | None:
    """uc_merced-train.txt, -val.txt and -test.txt, one image a line: the part by the image's name without its suffix.

    The files are those that torchgeo fetches. None where there is none of them; DataError where one is missing or an
    image stands in two.
    """
    folder = _above(root, raw, list(UC_MERCED.values()))
    if folder is None:
        return None
    parts: dict[str, Part] = {}
    for part, name in UC_MERCED.items():
        try:
            lines = (folder / name).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            raise DataError(f"{folder / name}: no such file; restore it, or take the other two away") from None
        for stem in (Path(line).stem for line in lines):
            if parts.setdefault(stem, PARTS[part]) != part:
                raise DataError(f"{folder / name}: {stem} stands in {UC_MERCED[parts[stem]]} too; restore the files")
    return PublishedSplit(parts, ", ".join(UC_MERCED.values()))


def bigearthnet_split(root: Path, raw: Path) -> PublishedSplit | None:
    """metadata.parquet of BigEarthNet v2: the part by the patch's name.

    None where there is none; DataError where it lacks patch_id or split, or names another part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = _above(root, raw, [BIGEARTHNET])
    if folder is None:
        return None
    path = folder / BIGEARTHNET
    try:
        table = pq.read_table(path, columns=["patch_id", "split"])
        names, splits = (table[column].to_pylist() for column in ("patch_id", "split"))
    except (OSError, pa.ArrowException, KeyError) as error:
        problem = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is no table of patch_id and split ({problem}); restore it, or take it away") from None
    unknown = sorted({str(split) for split in splits} - set(PARTS))
    if unknown:
        raise DataError(f"{path}: split = {unknown[0]!r} is none of {', '.join(PARTS)}")
    return PublishedSplit({name: PARTS[split] for name, split in zip(names, splits, strict=True)}, BIGEARTHNET)


def _above(root: Path, raw: Path, names: list[str]) -> Path | None:
    """The first folder from `root` up to `raw` that holds one of the files."""
    for folder in (root, *root.parents):
        if any((folder / name).is_file() for name in names):
            return folder
        if folder == raw:
            return None
    return None
