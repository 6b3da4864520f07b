"""Copies are found without comparing everything with everything, and the right one stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gfm.geopile.duplicates import Duplicate, find_duplicates
from gfm.geopile.row import Row

LOOKS = 0x0F1E2D3C4B5A6978


def row(name: str, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "id": f"{changes.get('source', 's')}/{name}",
        "source": "s",
        "place": name,
        "file": name,
        "label": None,
        "width": 64,
        "height": 64,
        "gsd_m": None,
        "crs": None,
        "date": None,
        "entropy_bits": 7.0,
        "contrast": 40.0,
        "sharpness": 500.0,
        "nodata_share": 0.0,
        "cloud_share": None,
        "pixel_hash": name,
        "dhash": f"{LOOKS:016x}",
        "bounds": None,
    }
    return Row(**(values | changes))


def kept(rows: Sequence[Row], bits: int = 3) -> list[str]:
    dropped = find_duplicates(rows, ["first", "s", "last"], bits)
    return [row.id for number, row in enumerate(rows) if number not in dropped]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("z", label="port"), row("a", width=999)),
        (row("z", width=128), row("a", source="first")),
        (row("z", source="first"), row("a")),
        (row("a"), row("z")),
    ],
    ids=["labelled", "larger", "earlier source", "smaller id"],
)
@pytest.mark.parametrize("exact", [True, False])
def test_of_two_copies_the_better_one_stays(one: Row, other: Row, exact: bool) -> None:
    if exact:
        other = row(other.file, source=other.source, width=other.width, pixel_hash=one.pixel_hash)
    assert kept([other, one]) == kept([one, other]) == [one.id]


def test_an_image_is_dropped_only_for_one_that_is_kept_and_close() -> None:
    chain = [row("a"), row("b", dhash=f"{LOOKS ^ 0b111:016x}"), row("c", dhash=f"{LOOKS ^ 0b111111:016x}")]
    assert kept(chain) == ["s/a", "s/c"]  # b looks like a; c looks like b only, which is gone
    assert find_duplicates(chain, ["s"], 3) == {1: Duplicate("near duplicate", 0)}


def test_a_copy_of_a_copy_names_the_image_that_is_in_the_collection() -> None:
    rows = [row("a"), row("b", dhash=f"{LOOKS ^ 1:016x}"), row("c", pixel_hash="b", dhash=f"{LOOKS ^ 1:016x}")]
    assert find_duplicates(rows, ["s"], 3)[2] == Duplicate("exact duplicate", 0)


def test_water_is_not_a_copy_of_other_water() -> None:
    calm = [row("a", entropy_bits=1.5), row("b", entropy_bits=1.5)]
    haze = [row("a", dhash="0" * 16), row("b", dhash="0" * 16)]
    assert len(kept(calm)) == len(kept(haze)) == 2
    assert len(kept([row("a", entropy_bits=1.5), row("b", entropy_bits=1.5, pixel_hash="a")])) == 1
