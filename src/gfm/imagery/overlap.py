"""Which footprints share ground: among many boxes in degrees, and between two outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gfm.imagery.footprint import FULL_TURN, Corners

# Degrees (about 0.1 m) by which footprints must overlap in both directions: tile edges that touch carry rounding noise.
OVERLAP_DEG = 1e-6
_AT_ONCE = 65536  # images

Pairs = npt.NDArray[np.int64]
Boxes = npt.NDArray[np.float64]


def overlapping(images: Boxes, samples: Boxes) -> Pairs:
    """Pairs (image, sample) whose boxes share ground; touching is not sharing.

    Both are (N, 4) of west, south, east, north in degrees, NaN where there is no footprint. West is greater than east
    where a box crosses the antimeridian; longitudes may also run on past 180 (0 to 360, or -190).
    """
    import shapely

    image_at, image_boxes = _boxes(images)
    sample_at, sample_boxes = _boxes(samples)
    if not len(image_at) or not len(sample_at):
        return np.empty((0, 2), np.int64)
    tree = shapely.STRtree(shapely.box(*sample_boxes.T))
    found = []
    for start in range(0, len(image_boxes), _AT_ONCE):  # a million outlines at once would be half a gigabyte
        near, sample = tree.query(shapely.box(*image_boxes[start : start + _AT_ONCE].T))
        found.append((near + start, sample))
    image, sample = (np.concatenate(part) for part in zip(*found, strict=True))
    a, b = image_boxes[image], sample_boxes[sample]
    across = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    along = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = (across > OVERLAP_DEG) & (along > OVERLAP_DEG)
    return np.unique(np.stack([image_at[image[shared]], sample_at[sample[shared]]], axis=1), axis=0)


def shared_share(one: Corners, other: Corners) -> float:
    """How much of the smaller of two convex outlines (longitude, latitude in degrees) lies in the other, 0 to 1."""
    import shapely

    first = shapely.MultiPoint(_unwrapped(one, one[0][0])).convex_hull
    second = shapely.MultiPoint(_unwrapped(other, one[0][0])).convex_hull
    smaller = min(first.area, second.area)
    return float(first.intersection(second).area / smaller) if smaller > 0 else 0.0


def _unwrapped(corners: Corners, near: float) -> Sequence[tuple[float, float]]:
    """The same corners with longitudes within half a turn of `near`: no edge runs round the Earth."""
    return [(x - FULL_TURN * round((x - near) / FULL_TURN), y) for x, y in corners]


def _boxes(bounds: Boxes) -> tuple[Pairs, Boxes]:
    """Positions and boxes, between -180 and 180, of the rows that have one; a box across 180 becomes two."""
    known = np.flatnonzero(~np.isnan(bounds).any(axis=1))
    boxes = bounds[known].copy()
    boxes[boxes[:, 0] > boxes[:, 2], 2] += FULL_TURN
    boxes[boxes[:, 2] - boxes[:, 0] >= FULL_TURN, 0:3:2] = -180.0, 180.0
    turns = np.floor((boxes[:, 0] + 180) / FULL_TURN) * FULL_TURN
    boxes[:, 0] -= turns
    boxes[:, 2] -= turns
    beyond = boxes[:, 2] > 180
    eastern = boxes[beyond].copy()
    boxes[beyond, 2] = 180.0
    eastern[:, 0], eastern[:, 2] = -180.0, eastern[:, 2] - FULL_TURN
    return np.concatenate([known, known[beyond]]), np.concatenate([boxes, eastern])
