"""Whether two images show the same ground, shifted, turned or at another zoom: by corners that agree on one movement.

Corners with a descriptor of 256 bits (ORB; Rublee et al., 2011). Pairs of images are proposed by descriptors that are
nearly equal, found as hashes are, and proved by a similarity (shift, turn, zoom) that their corners agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from gfm.imagery.alike import Numbers, Words, close_pairs
from gfm.imagery.hashing import Image, grey

MOST = 256  # corners an image
AGREE = 16  # corners on one movement: the same ground

_SIDE = 256  # pixels of the longer side that is looked at
_WORDS = 2  # of a descriptor's four that are compared to propose pairs: four find no more, and take twice the time
_WORD_BITS = 3  # by which one of them may differ
_VOTES = 2  # descriptors so alike that propose a pair of images
_RATIO = 0.8  # of the distances of the nearest and the second (Lowe, 2004)
_PX = 3.0  # that a corner may lie off
_ZOOM = 2.5  # by which one may be larger than the other
_EDGE = 16  # pixels along an image's edges that are too near for a descriptor


class Keypoints(NamedTuple):
    """Corners of one image, the strongest first: x and y float32 (N, 2), and four words each (N, 4)."""

    points: npt.NDArray[np.float32]
    words: Words


_NONE = Keypoints(np.empty((0, 2), np.float32), np.empty((0, 4), np.uint64))


def keypoints(image: Image) -> Keypoints:
    """The corners of a uint8 (H, W, C) image; none of one without any, such as water, or of a mere strip."""
    picture = grey(image)
    height, width = (round(side * _SIDE / max(picture.shape)) for side in picture.shape)
    if min(height, width) <= 2 * _EDGE:
        return _NONE
    if max(picture.shape) != _SIDE:
        how = cv2.INTER_AREA if max(picture.shape) > _SIDE else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
    orb = cv2.ORB.create(MOST, edgeThreshold=_EDGE, patchSize=31, fastThreshold=8)
    found, bits = orb.detectAndCompute(picture, None)
    if bits is None:
        return _NONE
    order = np.argsort([-corner.response for corner in found], kind="stable")[:MOST]
    return Keypoints(np.array([found[at].pt for at in order], np.float32), bits[order].view(np.uint64))


def both_ways(image: Image) -> tuple[Keypoints, Keypoints]:
    """The corners of an image and of its mirror image; turns need nothing of the kind."""
    return keypoints(image), keypoints(np.ascontiguousarray(image[:, ::-1]))


def save_keypoints(path: Path, names: Sequence[str], each: Sequence[Keypoints]) -> None:
    """Write the corners of named images, the same bytes for the same ones; a name may come several times."""
    points = np.concatenate([np.empty((0, 2), np.float32), *(one.points for one in each)])
    words = np.concatenate([np.empty((0, 4), np.uint64), *(one.words for one in each)])
    counts = np.array([len(one.words) for one in each], np.int64)
    np.savez(path, names=np.array(names, np.str_), counts=counts, points=points, words=words)


def load_keypoints(path: Path) -> tuple[list[str], list[Keypoints]]:
    """What `save_keypoints` wrote. Raises FileNotFoundError, and ValueError where its tables do not fit each other."""
    with np.load(path) as file:
        names, counts, points, words = (file[table] for table in ("names", "counts", "points", "words"))
    kinds = names.dtype.kind, counts.dtype, points.dtype, words.dtype
    shapes = counts.shape, points.shape, words.shape
    if kinds != ("U", np.int64, np.float32, np.uint64) or (counts < 0).any():
        raise ValueError("its tables hold something else than corners")
    if names.ndim != 1 or shapes != (names.shape, (counts.sum(), 2), (counts.sum(), 4)):
        raise ValueError(f"its tables do not fit each other: {len(np.atleast_1d(names))} names, {shapes}")
    ends = np.cumsum(counts)[:-1]
    parts = zip(np.split(points, ends), np.split(words, ends), strict=True)
    return names.tolist(), [Keypoints(*part) for part in parts] if len(counts) else []


def same_ground(images: Sequence[Keypoints], others: Sequence[Keypoints]) -> list[tuple[int, int]]:
    """Pairs (image, other) that show the same ground: proposed by some descriptors, proved by AGREE corners."""
    pairs = proposed(images, others).tolist()
    return [(one, other) for one, other in pairs if agreeing(images[one], others[other]) >= AGREE]


def proposed(images: Sequence[Keypoints], others: Sequence[Keypoints]) -> Numbers:
    """Pairs (image, other), (P, 2), that have some nearly equal descriptors: what `agreeing` should look at."""
    (owner, left), (other, right) = _flat(images), _flat(others)
    votes = []
    for word in range(_WORDS):
        mine, theirs = close_pairs(left[:, word], right[:, word], _WORD_BITS)
        votes.append(np.stack([owner[mine], other[theirs], mine], axis=1))
    each = np.unique(np.concatenate(votes), axis=0)  # a corner votes once
    pairs, count = np.unique(each[:, :2], axis=0, return_counts=True)
    return np.asarray(pairs[count >= _VOTES])


def agreeing(one: Keypoints, other: Keypoints) -> int:
    """How many corners of the two agree on one shift, turn and zoom."""
    if min(len(one.words), len(other.words)) < 2:
        return 0
    apart = np.bitwise_count(one.words[:, None] ^ other.words[None]).sum(axis=2, dtype=np.int64)
    nearest = apart.argmin(axis=1)
    rows = np.arange(len(apart))
    first, second = np.partition(apart, 1, axis=1)[:, :2].T
    mutual = (apart.argmin(axis=0)[nearest] == rows) & (first < _RATIO * second)
    here, there = one.points[mutual], other.points[nearest[mutual]]
    if len(here) < AGREE:
        return 0
    movement, inside = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=_PX)
    if movement is None or not 1 / _ZOOM <= np.hypot(movement[0, 0], movement[0, 1]) <= _ZOOM:
        return 0
    agree = inside.ravel() > 0
    # Corners of several sizes lie on one place: places are counted.
    return min(len(np.unique(points[agree].round(), axis=0)) for points in (here, there))


def _flat(images: Sequence[Keypoints]) -> tuple[Numbers, Words]:
    """Every corner's image and words."""
    owner = np.repeat(np.arange(len(images)), [len(one.words) for one in images])
    return owner, np.concatenate([np.empty((0, 4), np.uint64), *(one.words for one in images)])
