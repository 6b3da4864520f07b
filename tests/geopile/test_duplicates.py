"""Copies are found without comparing everything with everything, and the right one stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.geopile.duplicates import Pictures, find_duplicates

LOOKS = 0x0F1E2D3C4B5A6978
SOURCES = ("first", "s", "last")


@dataclass(frozen=True)
class Image:
    """One image; its id is SOURCE/name."""

    name: str
    source: str = "s"
    label: str | None = None
    width: int = 64
    looks: int = LOOKS
    entropy_bits: float = 7.0
    pixels: str = ""  # those of the image of this name; empty: its own

    @property
    def id(self) -> str:
        return f"{self.source}/{self.name}"


def dropped(images: Sequence[Image], bits: int = 3) -> dict[str, tuple[str, bool]]:
    """By id of a dropped image: the one kept in its place, and whether their pixels are equal."""
    images = sorted(images, key=lambda image: image.id)
    pictures = Pictures(
        labelled=np.array([image.label is not None for image in images], bool),
        area=np.array([image.width * 64 for image in images], int),
        source=np.array([SOURCES.index(image.source) for image in images], np.int32),
        pixels=np.array([_pixels(image) for image in images], np.uint64).reshape(-1, 2),
        looks=np.array([image.looks for image in images], np.uint64),
        entropy_bits=np.array([image.entropy_bits for image in images], np.float32),
    )
    found = find_duplicates(pictures, bits)
    return {
        image.id: (images[found.kept[number]].id, bool(found.exact[number]))
        for number, image in enumerate(images)
        if found.kept[number] != number
    }


def _pixels(image: Image) -> tuple[int, int]:
    return 0, xxhash.xxh3_64_intdigest((image.pixels or image.name).encode())


def kept(images: Sequence[Image], bits: int = 3) -> list[str]:
    gone = dropped(images, bits)
    return [image.id for image in images if image.id not in gone]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Image("z", label="port"), Image("a", width=999)),
        (Image("z", width=128), Image("a", source="first")),
        (Image("z", source="first"), Image("a")),
        (Image("a"), Image("z")),
    ],
    ids=["labelled", "larger", "earlier source", "smaller id"],
)
@pytest.mark.parametrize("exact", [True, False])
def test_of_two_copies_the_better_one_stays(one: Image, other: Image, exact: bool) -> None:
    if exact:
        other = Image(other.name, source=other.source, width=other.width, pixels=one.name)
    assert kept([other, one]) == kept([one, other]) == [one.id]
    assert dropped([one, other]) == {other.id: (one.id, exact)}


def test_an_image_is_dropped_only_for_one_that_is_kept_and_close() -> None:
    chain = [Image("a"), Image("b", looks=LOOKS ^ 0b111), Image("c", looks=LOOKS ^ 0b111111)]
    assert kept(chain) == ["s/a", "s/c"]  # b looks like a; c looks like b only, which is gone
    assert dropped(chain) == {"s/b": ("s/a", False)}


def test_a_copy_of_a_copy_names_the_image_that_is_in_the_collection() -> None:
    images = [Image("a"), Image("b", looks=LOOKS ^ 1), Image("c", pixels="b", looks=LOOKS ^ 1)]
    assert dropped(images)["s/c"] == ("s/a", False)  # equal to b, and alike to a


def test_water_is_not_a_copy_of_other_water() -> None:
    calm = [Image("a", entropy_bits=1.5), Image("b", entropy_bits=1.5)]
    haze = [Image("a", looks=0), Image("b", looks=0)]
    assert len(kept(calm)) == len(kept(haze)) == 2
    assert len(kept([Image("a", entropy_bits=1.5), Image("b", entropy_bits=1.5, pixels="a")])) == 1


def test_nothing_is_a_copy_of_nothing() -> None:
    assert dropped([]) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(SOURCES), st.booleans(), st.integers(0, 9), st.integers(0, 63), st.integers(0, 63)),
        max_size=14,
    )
)
def test_whatever_the_images_one_stays_for_every_copy_and_no_two_that_stay_are_copies(
    drawn: list[tuple[str, bool, int, int, int]],
) -> None:
    images = [
        Image(f"{number}", source, "x" if labelled else None, looks=LOOKS ^ flips, pixels=f"p{pixels}")
        for number, (source, labelled, pixels, flips, _) in enumerate(drawn)
    ]
    by_id = {image.id: image for image in images}
    gone = dropped(images, bits=2)
    for name, (stays, exact) in gone.items():
        assert stays not in gone
        assert exact == (by_id[name].pixels == by_id[stays].pixels)
        twins = [image for image in images if image.pixels == by_id[name].pixels]
        assert exact or any((twin.looks ^ by_id[stays].looks).bit_count() <= 2 for twin in twins)
    left = [image for image in images if image.id not in gone]
    for one, other in product(left, left):
        if one is not other:
            assert one.pixels != other.pixels
            assert (one.looks ^ other.looks).bit_count() > 2
