"""Which of the images that were found make the collection, and which would make it without one of its sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gfm.geopile.catalogue import Catalogue
from gfm.geopile.duplicates import EXACT, NEAR, find_duplicates
from gfm.geopile.quarantine import Dropped
from gfm.geopile.quota import OVER_QUOTA, over_quota
from gfm.imagery.alike import Numbers
from gfm.params import Params

Mask = npt.NDArray[np.bool_]

_NAMES_AT_ONCE = 16384


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry an image of the catalogue."""

    kept: Mask
    instead: Numbers  # of its copies the best, itself where it is that; -1 where its quality is too low
    exact: Mask  # whether the two have the same pixels
    without: dict[str, Mask]  # what would be kept without a source

    @property
    def returned(self) -> Mask:
        """Images that only a collection without some source holds: copies of what is left out."""
        returned = np.zeros_like(self.kept)
        for kept in self.without.values():
            returned |= kept & ~self.kept
        return returned

    def reasons(self, catalogue: Catalogue, images: Numbers) -> list[str]:
        """Why some images are not kept."""
        copies = np.where(self.exact[images], EXACT, NEAR)
        poor = np.array(catalogue.reasons)[catalogue.entries["reason"][images]]
        best = np.where(self.instead[images] == images, OVER_QUOTA, copies)
        return list(np.where(self.instead[images] < 0, poor, best).tolist())


def choose(params: Params, catalogue: Catalogue) -> Choice:
    """Leave out what is poor, then of copies all but the best, then what is over the quota."""
    source = catalogue.entries["source"]
    usable = catalogue.entries["reason"] == 0
    instead, exact = _best(params, catalogue, usable)
    without = {}
    for name in params.geopile.leave_out:
        others = usable & (source != list(params.geopile.sources).index(name))
        without[name] = _within_quota(params, catalogue, _best(params, catalogue, others)[0])
    return Choice(_within_quota(params, catalogue, instead), instead, exact, without)


def dropped(params: Params, catalogue: Catalogue, choice: Choice) -> Iterator[Dropped]:
    """What is not kept, sorted by source and id."""
    names = list(params.geopile.sources)
    for source in sorted(names):
        images = np.flatnonzero((catalogue.entries["source"] == names.index(source)) & ~choice.kept)
        for group in np.split(images, range(_NAMES_AT_ONCE, len(images), _NAMES_AT_ONCE)):
            instead = choice.instead[group]
            kept = np.full(len(group), "", object)
            copies = (instead >= 0) & (instead != group)
            kept[copies] = catalogue.names(instead[copies])
            for row in zip(catalogue.names(group), choice.reasons(catalogue, group), kept, strict=True):
                yield Dropped(source, *row)


def _best(params: Params, catalogue: Catalogue, among: Mask) -> tuple[Numbers, Mask]:
    images = np.flatnonzero(among)
    found = find_duplicates(catalogue.pictures(images), params.geopile.near_duplicate_bits)
    instead, exact = np.full(len(catalogue), -1, np.int64), np.zeros(len(catalogue), np.bool_)
    instead[images], exact[images] = images[found.kept], found.exact
    return instead, exact


def _within_quota(params: Params, catalogue: Catalogue, instead: Numbers) -> Mask:
    kept: Mask = instead == np.arange(len(catalogue))
    quota = params.geopile.quota
    if quota is not None:
        images = np.flatnonzero(kept)
        classes = catalogue.entries[quota.by][images].astype(np.int64)
        kept[images[over_quota(classes, catalogue.names(images), quota)]] = False
    return kept
