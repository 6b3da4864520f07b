"""The leakage guard: which images of the collection show what a downstream task validates or tests on.

Three independent signs, the strongest first: the same pixels; the same looks (dHash) in any flip or turn; the same
ground. A copy that was compressed again and mirrored is caught by its looks, a newer picture of a test area by its
ground.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

How = Literal["pixels", "looks", "footprint"]
HOWS: tuple[How, ...] = ("pixels", "looks", "footprint")

# A hash must change at least so often, of 56 times, from bit to bit along its rows and along its columns. Less is the
# hash of something flat, evenly shaded or striped, which thousands of unrelated pictures share.
TELLING_CHANGES = 10
# Degrees (about 0.1 m) by which footprints must overlap in both directions: tile edges that touch carry rounding noise.
OVERLAP_DEG = 1e-6
_PAIRS_AT_ONCE = 4_000_000  # candidate pairs held in memory

Words = npt.NDArray[np.uint64]
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
    untelling: int  # of them, whose looks say nothing (see TELLING_CHANGES); pixels and ground still count


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


def words(hashes: Sequence[Sequence[str]]) -> Words:
    """Hex hashes as (N, variants) 64-bit words."""
    variants = len(hashes[0]) if hashes else 1
    packed = [int(value, 16) for variants_of_one in hashes for value in variants_of_one]
    return np.asarray(packed, np.uint64).reshape(len(hashes), variants)


def telling(hashes: Words) -> npt.NDArray[np.bool_]:
    """Whether each hash says enough about a picture to be compared (see TELLING_CHANGES)."""
    eighth = np.uint64(8)
    one = np.uint64(1)
    last_column = np.uint64(0x7F7F7F7F7F7F7F7F)  # the 7 pairs inside each row of 8 bits
    along_rows = np.bitwise_count((hashes ^ (hashes >> one)) & last_column)
    last_row = np.uint64(0x00FFFFFFFFFFFFFF)
    along_columns = np.bitwise_count((hashes ^ (hashes >> eighth)) & last_row)
    result: npt.NDArray[np.bool_] = (along_rows >= TELLING_CHANGES) & (along_columns >= TELLING_CHANGES)
    return result


def alike(upright: Words, variants: Words, bits: int) -> Places:
    """Pairs (image, entry) whose hashes differ by at most `bits` in any variant: (P, 2), unique.

    Two words within `bits` of each other are equal in at least one of bits + 1 bands (pigeonhole), so only pairs that
    share a band are counted out (Norouzi et al., multi-index hashing).
    """
    entries = np.repeat(np.arange(len(variants)), variants.shape[1])
    queries = variants.reshape(-1)
    keep = telling(queries)
    entries, queries = entries[keep], queries[keep]
    places = np.flatnonzero(telling(upright))
    hashes = upright[places]
    found = [np.empty((0, 2), np.int64)]
    edges = [64 * band // (bits + 1) for band in range(bits + 2)]
    for low, high in pairwise(edges):
        mask = np.uint64((1 << (high - low)) - 1)
        keys = (hashes >> np.uint64(low)) & mask
        order = np.argsort(keys, kind="stable")
        wanted = (queries >> np.uint64(low)) & mask
        first = np.searchsorted(keys[order], wanted, "left")
        counts = np.searchsorted(keys[order], wanted, "right") - first
        for chunk in _chunks(counts):
            query = np.repeat(chunk, counts[chunk])
            starts = np.cumsum(counts[chunk]) - counts[chunk]
            nth = np.arange(len(query)) - np.repeat(starts, counts[chunk])
            image = order[first[query] + nth]
            close = np.bitwise_count(hashes[image] ^ queries[query]) <= bits
            found.append(np.stack([places[image[close]], entries[query[close]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _chunks(counts: Places) -> Iterator[Places]:
    """Positions with a count, in runs of about _PAIRS_AT_ONCE pairs."""
    wanted = np.flatnonzero(counts)
    if len(wanted):
        number = np.cumsum(counts[wanted]) // _PAIRS_AT_ONCE
        yield from np.split(wanted, np.flatnonzero(np.diff(number)) + 1)


def overlapping(images: npt.NDArray[np.float64], samples: npt.NDArray[np.float64]) -> Places:
    """Pairs (image, sample) whose footprints share ground, from (N, 4) bounds in degrees; touching is not sharing."""
    import shapely

    image_at, image_boxes = _boxes(images)
    sample_at, sample_boxes = _boxes(samples)
    if not len(image_at) or not len(sample_at):
        return np.empty((0, 2), np.int64)
    tree = shapely.STRtree(shapely.box(*image_boxes.T))
    sample, image = tree.query(shapely.box(*sample_boxes.T))
    a, b = image_boxes[image], sample_boxes[sample]
    across = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    along = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = (across > OVERLAP_DEG) & (along > OVERLAP_DEG)
    return np.unique(np.stack([image_at[image[shared]], sample_at[sample[shared]]], axis=1), axis=0)


def _boxes(bounds: npt.NDArray[np.float64]) -> tuple[Places, npt.NDArray[np.float64]]:
    """Positions and boxes of the georeferenced rows; one that crosses the antimeridian becomes two boxes."""
    known = np.flatnonzero(~np.isnan(bounds).any(axis=1))
    boxes = bounds[known]
    crossing = boxes[:, 0] > boxes[:, 2]
    western, eastern = boxes.copy(), boxes[crossing].copy()
    western[crossing, 2] = 180.0
    eastern[:, 0] = -180.0
    return np.concatenate([known, known[crossing]]), np.concatenate([western, eastern])


def _same_pixels(images: npt.NDArray[np.object_], samples: npt.NDArray[np.object_]) -> list[tuple[int, int]]:
    by_hash: dict[str, list[int]] = {}
    for position, value in enumerate(images):
        by_hash.setdefault(value, []).append(position)
    return [(image, entry) for entry, value in enumerate(samples) for image in by_hash.get(value, ())]


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
    values = [[columns[side][row] for side in sides] for row in rows]
    return np.asarray(values, np.float64).reshape(-1, 4)  # None becomes NaN
