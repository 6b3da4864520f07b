"""An image's split depends on its place alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gfm.errors import DataError
from gfm.geopile.place_rule import place_split, place_splits
from gfm.geopile.source_shares import most_val_share, source_shares, unevenness
from gfm.geopile.splits import split
from gfm.layout import COLLECTION_SPLIT, SPLITS
from gfm.params import Splits

Draw = Callable[..., Any]


def fill(chain: Any, picture: Draw, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        chain.image(f"i{number:03d}", picture(number), place=f"block-{number // 4}")
    for number, part in enumerate(("train", "val", "test")):
        if not chain.samples or len(chain.samples) < 3:
            chain.sample(part, [picture(9000 + number)], part)


def asking(chain: Any, **rule: Any) -> Any:
    return chain.params.model_copy(update={"splits": chain.params.splits.model_copy(update=rule)})


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


def test_named_places_are_held_out_or_train_and_what_leaks_from_them_stays_out(chain: Any, picture: Draw) -> None:
    fill(chain, picture, 40)
    chain.image("copied", picture(9002), place="block-1")
    chain.write()
    split(chain.params)
    before = splits()
    assert before["drawn/i004.jpg"] == before["drawn/i012.jpg"] == "train"
    held_out = next(number for number in range(0, 40, 4) if before[f"drawn/i{number:03d}.jpg"] == "val")
    split(asking(chain, val_places=["block-1", "block-3"], train_places=[f"block-{held_out // 4}"]))
    after = splits()
    changed = {identity for identity in after if after[identity] != before[identity]}
    assert changed == {f"drawn/i{first + number:03d}.jpg" for first in (4, 12, held_out) for number in range(4)}
    assert after["drawn/copied.jpg"] == "leak"


def test_a_named_place_that_does_not_exist_is_an_error_with_what_it_may_have_meant(chain: Any, picture: Draw) -> None:
    fill(chain, picture, 12)
    chain.write()
    with pytest.raises(
        DataError,
        match=r"splits\.val_places names blok-1, which is no place of any .*; did you mean block-1 or",
    ):
        split(asking(chain, val_places=["blok-1"]))
    with pytest.raises(
        DataError,
        match=r"train_places names ∅, .* of any image that was kept; places are in the column `place` of",
    ):
        split(asking(chain, train_places=["∅"]))


def test_a_place_named_to_both_splits_is_refused() -> None:
    with pytest.raises(ValueError, match="val_places and train_places both name here; take it out of one"):
        Splits(val_places=["here"], train_places=["there", "here"])


def of_source(chain: Any, picture: Draw, source: str, places: dict[str, int]) -> None:
    for place, number in places.items():
        for _ in range(number):
            chain.image(f"{source}{len(chain.images):03d}", picture(2000 + len(chain.images)), place)
            chain.images[-1]["source"] = source


def test_a_source_without_held_out_images_is_named_with_lines_that_give_it_some(
    chain: Any, picture: Draw, capsys: Any
) -> None:
    fill(chain, picture, 40)
    of_source(chain, picture, "few", {"few/a: [north].tif": 3, "few/b.tif": 17, "few/c.tif": 20})
    of_source(chain, picture, "one", {"ground-2km-1-1": 5})
    chain.write()
    rule = {"val_share": 0.1, "train_places": ["few/b.tif", "few/a: [north].tif", "few/c.tif"]}
    split(asking(chain, **rule))
    printed = capsys.readouterr().out.splitlines()
    assert "few                            40        0        0           0 of 3      0.0%" in printed
    assert "few: none of its 40 images in 3 places are in val" in printed
    alone = "one: none of its 5 images are in val, for they are one place, ground-2km-1-1; where that is a block of"
    assert f"{alone} ground, a smaller splits.block_km may divide it" in printed
    start = printed.index("to even this out, put under `splits:` in the parameter file")
    pasted = yaml.safe_load("\n".join(printed[start + 1 : start + 3]))
    assert pasted == {"val_places": ["few/a: [north].tif"], "train_places": ["few/b.tif", "few/c.tif"]}
    split(asking(chain, val_share=0.1, **pasted))
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("few:")]


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=2, max_size=12), min_size=1, max_size=3),
    st.floats(0.01, 0.6),
    st.randoms(use_true_random=False),
)
def test_what_is_said_to_paste_evens_every_source_out(sources: list[list[int]], share: float, dice: Any) -> None:
    rows = [
        (f"s{number}", f"s{number}/{place}")
        for number, counts in enumerate(sources)
        for place, count in enumerate(counts)
        for _ in range(count)
    ]
    names = sorted({place for _, place in rows})
    named = dice.sample(names, dice.randint(0, len(names)))
    middle = dice.randint(0, len(named))
    rule = Splits(val_share=share, val_places=named[:middle], train_places=named[middle:])

    def said(rule: Splits) -> list[str]:
        split_of = place_splits(names, rule)
        source, place = zip(*rows, strict=True)
        shares = source_shares(source, place, [split_of[name] for name in place])
        assert all(
            (one.share == 0 or one.share > most_val_share(share))
            == any(line.startswith(f"{one.source}: ") for line in unevenness(shares, rule))
            for one in shares
        )
        return unevenness(shares, rule)

    lines = said(rule)
    if lines:
        pasted = yaml.safe_load("\n".join(line for line in lines if line.startswith("  ")))
        assert said(rule.model_copy(update=pasted)) == []
