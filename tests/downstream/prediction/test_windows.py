"""Windows over a scene: they cover it, overlap as asked, and leave no trace in the blended result."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.downstream.prediction import windows as module
from gfm.downstream.prediction.windows import Windows, falling
from gfm.errors import DataError
from gfm.imagery.geotiff import TILE

LENGTHS = st.integers(1, 1500)
SIDES = st.integers(12, 300)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75])


def _whole(windows, channels, look):
    width, height = windows.out
    found = np.full((channels, height, width), np.inf, np.float32)
    blocks = list(windows.blended(channels, look))
    for block in blocks:
        part = found[:, block.y : block.y + block.logits.shape[1], block.x : block.x + block.logits.shape[2]]
        assert np.isinf(part).all(), "a pixel was given twice"
        part[:] = block.logits
    assert len(blocks) == windows.blocks(channels)
    return found


@given(LENGTHS, SIDES, OVERLAPS)
def test_windows_cover_a_scene_evenly_and_overlap_at_least_as_asked(length, side, overlap):
    starts = Windows(length, 1, (side, 1), overlap).columns
    assert starts[0] == 0 and starts[-1] == max(0, length - side)
    steps = np.diff(starts)
    assert (steps >= 1).all() and (steps <= side * (1 - overlap) + 1e-6).all()
    assert steps.size == 0 or steps.max() - steps.min() <= 1


@settings(max_examples=30)
@given(st.integers(1, 700), st.integers(1, 700), st.tuples(SIDES, SIDES), OVERLAPS, st.integers(1, 3))
def test_a_model_that_always_says_the_same_gives_the_same_everywhere(width, height, side, overlap, channels):
    windows = Windows(width, height, side, overlap)
    said = np.arange(1, channels + 1, dtype=np.float32)[:, None, None]

    def look(columns, y):
        return [(x, np.broadcast_to(said, (channels, side[1], side[0]))) for x in columns]

    np.testing.assert_allclose(_whole(windows, channels, look), said + np.zeros((1, height, width)), rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 900), st.integers(1, 600), st.tuples(SIDES, SIDES), OVERLAPS)
def test_what_every_window_sees_alike_comes_out_as_it_is_whatever_the_panels(width, height, side, overlap):
    """A model whose answer depends on the ground alone; with panels so narrow that there are several."""
    windows = Windows(width, height, side, overlap)
    ground = np.random.default_rng(0).random((1, height + side[1], width + side[0]), dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PANEL_PX", TILE)
        found = _whole(
            windows, 1, lambda columns, y: [(x, ground[:, y : y + side[1], x : x + side[0]]) for x in columns]
        )
    np.testing.assert_allclose(found, ground[:, :height, :width], rtol=1e-4)


def test_one_window_alone_is_given_as_it_is():
    logits = np.random.default_rng(1).normal(size=(3, 40, 30)).astype(np.float32)
    found = _whole(Windows(30, 40, (30, 40), 0.25), 3, lambda columns, y: [(0, logits)])
    np.testing.assert_allclose(found, logits, rtol=1e-6)


def test_between_two_windows_that_disagree_the_result_changes_step_by_step():
    windows = Windows(96, 8, (64, 8), 0.5)
    assert windows.columns == [0, 32]
    found = _whole(windows, 1, lambda columns, y: [(x, np.full((1, 8, 64), x > 0, np.float32)) for x in columns])
    row = found[0, 4]
    assert (row[:32] == 0).all() and (row[64:] == 1).all()
    assert np.abs(np.diff(row)).max() < 0.05, "a seam"


def test_ground_that_no_window_looked_at_is_no_number():
    windows = Windows(600, 20, (20, 20), 0)
    found = _whole(windows, 1, lambda columns, y: [(x, np.ones((1, 20, 20), np.float32)) for x in columns if x < 300])
    assert np.isnan(found[..., 300:]).all() and (found[..., :300] == 1).all()


@given(st.integers(4, 64), st.integers(1, 300), st.integers(1, 300), st.integers(2, 5), OVERLAPS)
@settings(max_examples=40)
def test_a_sharper_result_lies_where_the_scene_does_also_at_an_odd_factor(side, width, height, times, overlap):
    """`times * side + 1` px for `side`: no whole number, so that windows can begin at few places only."""
    factor = Fraction(times * side + 1, side)
    windows = Windows(width, height, (side, side), overlap, factor)
    wide, high = windows.out_window
    assert windows.out == (int(width * factor + Fraction(1, 2)), int(height * factor + Fraction(1, 2)))
    if overlap and max(width, height) > side:
        with pytest.raises(DataError, match=f"multiples of {side} px only.*--overlap"):
            _ = windows.columns, windows.rows
        return
    xs = np.arange(int(wide * 400), dtype=np.float32)

    def look(columns, y):
        for x in columns:
            start = x * factor
            assert start.denominator == 1
            yield x, np.broadcast_to(xs[int(start) : int(start) + wide], (1, high, wide))

    np.testing.assert_allclose(_whole(windows, 1, look)[0, 0], xs[: windows.out[0]], rtol=1e-5)


def test_weights_fall_to_the_edges_and_are_nowhere_nothing():
    weights = falling(7)
    assert weights[3] == 1 and (np.diff(weights[:4]) > 0).all()
    np.testing.assert_array_equal(weights, weights[::-1])
    assert falling(1)[0] > 0 and falling(2).min() > 0


def test_sums_take_no_more_memory_for_a_larger_scene():
    for classes in (2, 20, 250):
        sizes = {Windows(side, side, (512, 512), 0.25)._panel(classes) for side in (10_000, 1_000_000)}
        assert len(sizes) == 1
        panel = sizes.pop()
        assert panel % TILE == 0 and (panel == TILE or 4 * (classes + 1) * (TILE + 512) * panel <= module.PANEL_BYTES)
