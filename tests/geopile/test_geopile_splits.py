"""An image's split depends on its place alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from gfm.geopile.splits import place_split, split
from gfm.layout import COLLECTION_SPLIT, SPLITS

Draw = Callable[..., Any]


def fill(chain: Any, picture: Draw, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        chain.image(f"i{number:03d}", picture(number), place=f"block-{number // 4}")
    for number, part in enumerate(("train", "val", "test")):
        if not chain.samples or len(chain.samples) < 3:
            chain.sample(part, [picture(9000 + number)], part)


def splits() -> dict[str, str]:
    table = pd.read_parquet(COLLECTION_SPLIT)
    return dict(zip(table["id"], table["split"], strict=True))


def test_neighbours_on_one_block_of_ground_are_never_divided(chain: Any, picture: Draw) -> None:
    fill(chain, picture, 80)
    chain.write()
    split(chain.params)
    table = pd.read_parquet(COLLECTION_SPLIT)
    assert set(table["split"]) == {"train", "val"}
    assert (table.groupby("place")["split"].nunique() == 1).all()


def test_an_image_keeps_its_split_when_data_is_added(chain: Any, picture: Draw) -> None:
    fill(chain, picture, 40)
    chain.write()
    split(chain.params)
    before = splits()
    fill(chain, picture, 40, first=40)
    chain.write()
    split(chain.params)
    after = splits()
    assert {identity: after[identity] for identity in before} == before


@given(st.text(), st.floats(0.01, 0.98), st.floats(0, 0.01))
def test_a_larger_validation_share_only_adds_places(place: str, share: float, more: float) -> None:
    if place_split(place, share) == "val":
        assert place_split(place, share + more) == "val"


def test_the_share_of_places_is_about_what_was_asked() -> None:
    held_out = sum(place_split(f"place-{number}", 0.1) == "val" for number in range(5000))
    assert 430 < held_out < 570


def test_a_places_split_is_the_same_in_every_version() -> None:
    """Recorded: another salt or hash would move images between training and validation in everyone's collections."""
    parts = "".join(place_split(f"place-{number}", 0.3)[0] for number in range(24))
    assert parts == "tttvttttttvttttvtttttttv"


def test_the_same_inputs_give_the_same_bytes(chain: Any, picture: Draw) -> None:
    fill(chain, picture, 24)

    def digests() -> dict[str, str]:
        chain.write()
        split(chain.params)
        return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in SPLITS.iterdir()}

    first = digests()
    chain.images.reverse()
    assert digests() == first
    assert set(first) == {"collection.parquet", "leaks.csv", "summary.json"}


def test_counts_are_printed_and_written(chain: Any, picture: Draw, capsys: Any) -> None:
    fill(chain, picture, 24)
    chain.image("copied", picture(9002))
    chain.write()
    split(chain.params)
    summary = json.loads((SPLITS / "summary.json").read_text())
    assert sum(summary["images"].values()) == 25
    assert summary["images"]["leak"] == 1
    assert summary["leaks"] == {"pixels": 1, "looks": 0, "footprint": 0}
    printed = capsys.readouterr().out
    assert "drawn/copied.jpg = t test (test, by pixels)" in printed
