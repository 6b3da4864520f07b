"""Which footprints share ground: neighbours touch, the antimeridian does not divide, a turn of 360 degrees is none."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.imagery.footprint import slippy_bounds
from gfm.imagery.overlap import overlapping, shared_share


def test_neighbouring_map_tiles_touch_but_do_not_overlap() -> None:
    tiles = [slippy_bounds(x, y, 21) for x in range(1_258_000, 1_258_006) for y in range(1_090_000, 1_090_006)]
    bounds = np.asarray(tiles)
    pairs = overlapping(bounds, bounds)
    assert [tuple(pair) for pair in pairs] == [(number, number) for number in range(len(tiles))]


def test_footprints_meet_across_the_antimeridian() -> None:
    crossing = np.asarray([[179.9, -17.0, -179.9, -16.0], [np.nan] * 4])
    west, east, far = [179.95, -16.6, 179.99, -16.5], [-179.99, -16.6, -179.95, -16.5], [0.0, -16.6, 1.0, -16.5]
    assert overlapping(crossing, np.asarray([west, east, far])).tolist() == [[0, 0], [0, 1]]


def test_ground_counted_from_0_to_360_degrees_is_the_same_ground() -> None:
    """Such boxes once met nothing: a copy of a test area at 190 degrees east was not seen."""
    here = np.asarray([[-170.0, -17.0, -169.0, -16.0], [-180.0, -1.0, -179.0, 1.0], [170.0, 0.0, 180.0, 1.0]])
    there = np.asarray([[190.5, -16.5, 191.5, -15.5], [179.5, -0.5, 180.5, 0.5], [-10.0, 0.2, 369.0, 0.4]])
    assert overlapping(here, there).tolist() == [[0, 0], [1, 1], [1, 2], [2, 1], [2, 2]]


BOX = st.tuples(st.floats(-179, 179), st.floats(-80, 79), st.floats(0.01, 40), st.floats(0.01, 10), st.integers(-1, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=6), st.lists(BOX, min_size=1, max_size=6))
def test_full_turns_of_longitude_change_nothing(some: list[tuple[float, ...]], others: list[tuple[float, ...]]) -> None:
    def boxes(drawn: list[tuple[float, ...]], turns: bool) -> np.ndarray:
        return np.asarray([[w + 360 * t * turns, s, w + x + 360 * t * turns, s + y] for w, s, x, y, t in drawn])

    found = overlapping(boxes(some, False), boxes(others, False)).tolist()
    assert overlapping(boxes(some, True), boxes(others, True)).tolist() == found
    crossing = boxes(some, False)
    crossing[crossing[:, 2] > 180, 2] -= 360  # west greater than east
    assert overlapping(crossing, boxes(others, True)).tolist() == found


def test_outlines_that_touch_share_nothing_whatever_their_turn_and_across_the_antimeridian() -> None:
    one = ((179.8, 0.0), (-179.8, 0.1), (-179.9, 0.5), (179.7, 0.4))
    beside = ((-179.8, 0.1), (-179.4, 0.2), (-179.5, 0.6), (-179.9, 0.5))
    over = tuple((x + 360 if x < 0 else x, y) for x, y in one)
    assert shared_share(one, beside) < 1e-9
    assert shared_share(one, over) > 0.999
    assert shared_share(one, ((-180.0, 0.0), (-179.0, 0.0), (-179.0, 1.0), (-180.0, 1.0))) > 0.3
    assert shared_share(one, one[:2]) == 0.0
