"""Quotas: at most so many images of a class, so that a common one does not drown the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from gfm.imagery.alike import Numbers
from gfm.params import Quota

OVER_QUOTA = "over quota"


def over_quota(classes: Numbers, ids: Sequence[str], quota: Quota) -> npt.NDArray[np.bool_]:
    """Which images to leave out: those of a class whose ids hash highest, until it has `quota.most` images.

    `classes` is a number an image, -1 for those without a class, which are all kept; `ids` are all different. With a
    number as limit, what is kept depends on the class's own images alone: another source or class changes nothing, and
    a new image takes the place of one other at most. `smallest` gives every class as many as the smallest has.
    """
    chance = np.fromiter((xxhash.xxh3_64_intdigest(name.encode()) for name in ids), np.uint64, len(ids))
    order = np.lexsort((chance, classes))
    names, first, counts = np.unique(classes[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)  # of each image within its class
    limit = int(counts[names >= 0].min(initial=len(order))) if quota.most == "smallest" else quota.most
    over = np.zeros(len(order), np.bool_)
    over[order] = (classes[order] >= 0) & (place >= limit)
    return over
