"""The rows of the collection that one purpose may read: from the manifest, by split and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from gfm import layout
from gfm.errors import DataError

COLUMNS = ["id", "source", "label", "licence", "shard", "offset", "size", "width", "height"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Images of the collection, in the manifest's order. Arrow columns: worker processes share them without copies."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def id(self, index: int) -> str:
        """The image's id."""
        return str(self.table["id"][index].as_py())

    def place(self, index: int) -> tuple[str, int, int]:
        """Shard, offset and size of the image's bytes."""
        shard, offset, size = (self.table[column][index].as_py() for column in ("shard", "offset", "size"))
        return str(shard), int(offset), int(size)

    def labels(self) -> list[str]:
        """`source:label` of every row; a class means something only within its source."""
        return [
            f"{source}:{label}"
            for source, label in zip(self.table["source"].to_pylist(), self.table["label"].to_pylist(), strict=True)
        ]

    def weights(self, of_source: dict[str, float]) -> np.ndarray:
        """(rows,) float64: the weight of every row's source; 1 where it is declared no more."""
        return np.array([of_source.get(source, 1.0) for source in self.table["source"].to_pylist()], np.float64)

    def where(self, keep: Sequence[bool]) -> Rows:
        """The rows for which `keep` is true."""
        return Rows(self.table.filter(pa.array(keep, pa.bool_())))

    def fingerprint(self) -> str:
        """A hash of which images these are, and of their order."""
        digest = xxhash.xxh3_64()
        for identity in self.table["id"].to_pylist():
            digest.update(f"{identity}\n".encode())
        return str(digest.hexdigest())

    def licences(self) -> dict[str, tuple[str, int]]:
        """For every source: its licence and its number of images."""
        found: dict[str, tuple[str, int]] = {}
        for row in self.table.group_by(["source", "licence"]).aggregate([([], "count_all")]).to_pylist():
            before = found.get(row["source"], ("", 0))[1]
            found[row["source"]] = (row["licence"], before + row["count_all"])
        return dict(sorted(found.items()))


def manifest_of(without: str | None) -> Path:
    """The manifest of the collection, or of the collection without one of its sources."""
    return layout.MANIFEST if without is None else layout.manifest_without(without)


def read_rows(
    split: Literal["train", "val"], *, labelled_sources: Sequence[str] | None = None, without: str | None = None
) -> Rows:
    """The rows of one split; with `labelled_sources`, only labelled images of these sources.

    With `without`, of the collection as it would be without this source: it then has images that are copies of that
    source's, and are not in the whole collection.

    DataError where the collection or its split is missing, or where they are of different collections.
    """
    path = manifest_of(without)
    try:
        manifest = pq.read_table(path, columns=COLUMNS)
        splits = pq.read_table(layout.COLLECTION_SPLIT, columns=["id", "split"])
    except FileNotFoundError as error:
        stage = "gfm split" if str(layout.COLLECTION_SPLIT) in str(error) else "gfm assemble"
        raise DataError(f"{' '.join(str(error).split())}; run `{stage}` first") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} or {layout.COLLECTION_SPLIT}: cannot be read: {error}") from None
    position = pc.index_in(manifest["id"], value_set=splits["id"])
    if position.null_count:
        raise DataError(
            f"{layout.COLLECTION_SPLIT}: {position.null_count} images of {path} are in no split; run `gfm split` again"
        )
    keep = pc.equal(splits["split"].take(position), split)
    if labelled_sources is not None:
        chosen = pc.is_in(manifest["source"], value_set=pa.array(list(labelled_sources), manifest["source"].type))
        keep = pc.and_(keep, pc.and_(chosen, pc.is_valid(manifest["label"])))
    return Rows(manifest.filter(keep).combine_chunks())
