"""Which split a place of the collection belongs to: by hash of its name, unless the parameters name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from heapq import nlargest
from itertools import takewhile
from operator import eq
from typing import Literal

import xxhash

from gfm.errors import DataError
from gfm.layout import MANIFEST
from gfm.params import Splits

Side = Literal["train", "val"]

_SALT = "gfm collection split 1 "  # fixed for ever: another salt moves every place
_NEAR = 3  # close matches named in an error
_LOOKED_AT = 1000  # places compared as a whole to find them: of a million that would take minutes


def place_position(place: str) -> float:
    """Where a place stands between 0 and 1, from its name alone; those below `val_share` are held out."""
    return xxhash.xxh3_64_intdigest((_SALT + place).encode()) / 2**64


def place_split(place: str, val_share: float) -> Side:
    """The split of a place that nobody names: it never changes when other images come or go."""
    return "val" if place_position(place) < val_share else "train"


def place_splits(places: Iterable[str], rule: Splits) -> dict[str, Side]:
    """The split of every place. DataError where the rule names one that is not among them."""
    splits = {place: place_split(place, rule.val_share) for place in places}
    named: Mapping[Side, list[str]] = {"val": rule.val_places, "train": rule.train_places}
    for part, names in named.items():
        for name in names:
            if name not in splits:
                what = f"splits.{part}_places names {name}, which is no place of any image that was kept"
                raise DataError(f"{what}; {_existing(name, splits)}")
            splits[name] = part
    return splits


def _existing(name: str, places: Mapping[str, Side]) -> str:
    def ends_in_common(place: str) -> int:
        both = map(eq, name, place), map(eq, reversed(name), reversed(place))
        return sum(len(list(takewhile(bool, same))) for same in both)

    near = get_close_matches(name, nlargest(_LOOKED_AT, places, key=ends_in_common), n=_NEAR, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}places are in the column `place` of {MANIFEST}"
