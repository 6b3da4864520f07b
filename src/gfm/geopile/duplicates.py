"""Pictures that are in the collection twice: equal pixels, or looks within a few bits of dHash.

The same ground at another date is no duplicate unless it looks the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gfm.imagery.alike import Numbers, Words, close_pairs
from gfm.imagery.preference import by_preference

EXACT = "exact duplicate"
NEAR = "near duplicate"

# Water, snow and plain gradients have almost no looks: their hashes agree without their being copies, and they would
# fill a few buckets of the index. Below this entropy, or with nearly all bits alike, only equal pixels count.
FLAT_BITS = 3.0
FEW_BITS = 6


@dataclass(frozen=True, slots=True)
class Pictures:
    """What decides between copies, as arrays: one entry an image, in the order of the ids."""

    labelled: npt.NDArray[np.bool_]
    area: Numbers  # pixels
    source: npt.NDArray[np.int32]  # its number: images of an earlier source are preferred
    pixels: Words  # (N, 2), the pixel hash
    looks: Words  # the dHash
    entropy_bits: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.area)

    def where(self, chosen: Numbers) -> Pictures:
        """Some of the images."""
        return Pictures(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Copies:
    """For each image the one that is kept in its place, itself where it is kept; and whether their pixels are equal."""

    kept: Numbers
    exact: npt.NDArray[np.bool_]


def find_duplicates(pictures: Pictures, bits: int) -> Copies:
    """Which images to keep, within and across sources.

    Kept of a group is the labelled image, then the larger, then the one of the earlier source, then the smaller id.
    An image is dropped only for one that is itself kept and within `bits` of it.
    """
    ranked = by_preference(pictures.labelled, pictures.area, pictures.source)
    pixels = pictures.pixels[ranked]
    order = np.lexsort((pixels[:, 1], pixels[:, 0]))  # of equal pixels the best stays first
    new = np.ones(len(order), np.bool_)
    new[1:] = (pixels[order[1:]] != pixels[order[:-1]]).any(axis=1)
    best = np.empty(len(order), np.int64)
    best[ranked[order]] = ranked[order[new]][np.cumsum(new) - 1]
    exact = best != np.arange(len(best))
    candidates = ranked[~exact[ranked] & _has_looks(pictures)[ranked]]
    kept = np.arange(len(best))
    _near(candidates, pictures.looks, bits, kept)
    return Copies(kept[best], exact & (kept[best] == best))


def _near(ranked: Numbers, looks: Words, bits: int, kept: Numbers) -> None:
    """Write into `kept` what stays of the images `ranked`, which are in order of preference."""
    _, heads, group = np.unique(looks[ranked], return_index=True, return_inverse=True)
    by_rank = np.argsort(heads)  # groups in order of their best image, so that a smaller number is preferred
    heads = ranked[heads[by_rank]]
    hashes = looks[heads]
    stays = np.arange(len(heads))  # for every group of equal looks, the group whose head stays
    better: dict[int, list[int]] = {}
    one, other = close_pairs(hashes, hashes, bits)
    for first, second in zip(one[one < other].tolist(), other[one < other].tolist(), strict=True):
        better.setdefault(second, []).append(first)
    for number in sorted(better):
        stays[number] = next((first for first in sorted(better[number]) if stays[first] == first), number)
    rank_of = np.empty(len(heads), np.int64)
    rank_of[by_rank] = np.arange(len(heads))
    kept[ranked] = heads[stays[rank_of[group]]]


def _has_looks(pictures: Pictures) -> npt.NDArray[np.bool_]:
    ones = np.bitwise_count(pictures.looks)
    telling: npt.NDArray[np.bool_] = (ones >= FEW_BITS) & (ones <= 64 - FEW_BITS)
    return telling & (pictures.entropy_bits >= FLAT_BITS)
