"""The leakage guard: which images of the collection show what a downstream task validates or tests on.

Three independent signs, the strongest first: the same pixels; the same looks (dHash) in any flip or turn; the same
ground. A copy that was compressed again and mirrored is caught by its looks, a newer picture of a test area by its
ground.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gfm.imagery.alike import Words, alike, telling, words
from gfm.imagery.overlap import overlapping

How = Literal["pixels", "looks", "footprint", "shifted"]
HOWS: tuple[How, ...] = ("pixels", "looks", "footprint")  # those that every split looks for

Places = npt.NDArray[np.int64]  # positions in a table


class Leak(NamedTuple):
    """One image of the collection that shows one held-out sample."""

    id: str
    task: str
    sample: str
    split: str  # of the sample: val or test
    how: How


@dataclass(frozen=True, slots=True)
class Table:
    """The columns the guard reads, of the collection or of one task's held-out samples; one entry an image.

    `row` is the position of the image or sample it belongs to: a sample has an image per date.
    """

    row: Places
    pixel_hash: npt.NDArray[np.object_]
    dhashes: Words  # (N, 1) upright, or (N, 8) every flip and turn
    bounds: npt.NDArray[np.float64]  # (rows, 4) west south east north in degrees; NaN where not georeferenced


@dataclass(frozen=True, slots=True)
class Findings:
    leaks: list[Leak]
    held_out: int  # validation and test samples looked at
    untelling: int  # of them, whose looks say nothing (see alike.TELLING_CHANGES); pixels and ground still count


def find_leaks(
    manifest: Mapping[str, Sequence[Any]], tasks: Mapping[str, Mapping[str, Sequence[Any]]], bits: int
) -> Findings:
    """Compare the collection's images with every task's validation and test samples.

    `manifest` and `tasks` hold columns as lists (see data/geopile/manifest.parquet, data/tasks/*.parquet); `bits` is
    the dHash distance that still counts as the same picture. Each pair is reported once, by its strongest sign.
    """
    ids = manifest["id"]
    images = Table(
        row=np.arange(len(ids)),
        pixel_hash=np.asarray(manifest["pixel_hash"], object),
        dhashes=words([[value] for value in manifest["dhash"]]),
        bounds=_bounds(manifest, range(len(ids))),
    )
    leaks: list[Leak] = []
    held_out = untelling = 0
    for task, columns in sorted(tasks.items()):
        rows = [position for position, split in enumerate(columns["split"]) if split in ("val", "test")]
        samples = _samples(columns, rows)
        held_out += len(rows)
        untelling += len(rows) - len(np.unique(samples.row[telling(samples.dhashes).any(axis=1)]))
        found: dict[tuple[int, int], How] = {}
        for how, pairs in (
            ("footprint", overlapping(images.bounds, samples.bounds)),
            ("looks", alike(images.dhashes[:, 0], samples.dhashes, bits)),
            ("pixels", _same_pixels(images.pixel_hash, samples.pixel_hash)),
        ):
            for image, entry in pairs:
                sample = entry if how == "footprint" else samples.row[entry]
                found[int(image), int(sample)] = how  # type: ignore[assignment]
        leaks += [
            Leak(ids[image], task, columns["id"][rows[sample]], columns["split"][rows[sample]], how)
            for (image, sample), how in found.items()
        ]
    return Findings(sorted(leaks), held_out, untelling)


def _same_pixels(images: npt.NDArray[np.object_], samples: npt.NDArray[np.object_]) -> list[tuple[int, int]]:
    by_hash: dict[str, list[int]] = {}  # of the samples, which are few beside the images
    for position, value in enumerate(samples):
        by_hash.setdefault(value, []).append(position)
    return [(image, entry) for image, value in enumerate(images) for entry in by_hash.get(value, ())]


def _samples(columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> Table:
    """One entry per date of each of these samples; `row` counts within `rows`."""
    owner, pixel_hashes, variants = [], [], []
    for position, row in enumerate(rows):
        hashes, turned = json.loads(columns["pixel_hashes"][row]), json.loads(columns["dhashes"][row])
        for pixel_hash, date_variants in zip(hashes, turned, strict=True):
            owner.append(position)
            pixel_hashes.append(pixel_hash)
            variants.append(date_variants)
    return Table(np.asarray(owner, np.int64), np.asarray(pixel_hashes, object), words(variants), _bounds(columns, rows))


def _bounds(columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> npt.NDArray[np.float64]:
    sides = ("west", "south", "east", "north")
    whole = np.column_stack([np.asarray(columns[side], np.float64) for side in sides])  # None becomes NaN
    return np.asarray(whole[np.asarray(rows, np.int64)])
