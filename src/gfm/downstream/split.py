"""Which place trains, validates or tests: whole places only, so that neighbours never stand on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import xxhash

from gfm.errors import DataError
from gfm.params import PlaceSplit

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
SHOWN = 12  # places named in an error


def split_places(task: str, places: Iterable[str], rule: PlaceSplit) -> dict[str, Part]:
    """The part of every place. DataError where a named place does not exist or a part stays empty.

    Shares are by hash of the place's name alone: a place never changes its part when others come or go.
    """
    known = sorted(set(places))
    told = []
    for part in ("test", "val"):
        unknown = [name for name in getattr(rule, part) if not any(_within(place, name) for place in known)]
        if unknown:
            names = f"{', '.join(unknown)}, which {'is no place' if len(unknown) == 1 else 'are no places'}"
            told.append(f"tasks.{task}.data.split.{part} names {names}")
    if told:
        raise DataError("; ".join([*told, _existing(known)]))
    parts = {place: _part(task, place, rule) for place in known}
    for part in PARTS:
        if part not in parts.values():
            raise DataError(
                f"tasks.{task}.data.split leaves no place to {part}; {_existing(known)}; "
                f"name places in test and val, or change the shares{_or_smaller(known)}"
            )
    return parts


def _part(task: str, place: str, rule: PlaceSplit) -> Part:
    named: list[Part] = [part for part in ("test", "val") if any(_within(place, name) for name in getattr(rule, part))]
    if len(named) == 2:
        raise DataError(f"tasks.{task}.data.split gives {place} to both test and val; take it out of one")
    if named:
        return named[0]
    # Test and validation take their shares from opposite ends, so that changing one leaves the other alone.
    position = xxhash.xxh3_64_intdigest(place.encode()) / 2**64
    if position < rule.test_share:
        return "test"
    return "val" if position >= 1 - rule.val_share else "train"


def _within(place: str, name: str) -> bool:
    return place == name or place.startswith(f"{name}/")


def _or_smaller(places: Sequence[str]) -> str:
    return ", or make blocks of ground smaller (data.block_km)" if any("ground-" in place for place in places) else ""


def _existing(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"{len(places)} places exist: {', '.join(places[:SHOWN])}{more}"


def doubles(parts: Sequence[Part], pixel_hashes: Sequence[Sequence[str]]) -> set[int]:
    """Samples to leave out, since a date of theirs shows the very pixels of a sample in a part that counts more.

    Test counts more than validation, validation more than training.
    """
    rank: Mapping[Part, int] = {"test": 2, "val": 1, "train": 0}
    highest: dict[str, int] = {}
    for part, hashes in zip(parts, pixel_hashes, strict=True):
        for value in hashes:
            highest[value] = max(highest.get(value, 0), rank[part])
    return {
        position
        for position, (part, hashes) in enumerate(zip(parts, pixel_hashes, strict=True))
        if any(highest[value] > rank[part] for value in hashes)
    }
