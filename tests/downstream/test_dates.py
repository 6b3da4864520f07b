"""Dates: which of many stand for a series, how they are read from names, and how features are reduced over them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.downstream.dates import spread
from gfm.downstream.formats.file_dates import date_of
from gfm.downstream.tasks.series import over_dates


@given(st.integers(1, 80), st.integers(2, 20))
def test_a_spread_of_dates_has_the_first_and_the_last_and_none_twice(count, number):
    found = spread(range(count), number)
    assert len(found) == min(count, number) and found == sorted(set(found))
    assert found[0] == 0 and found[-1] == count - 1


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2030, 1, 1)), st.sampled_from(["%Y-%m-%d", "S2_%Y%m%dT%H%M%S", "%Y%j"])
)
def test_a_date_that_a_name_holds_is_read_back(moment, pattern):
    name = f"x12_{moment.strftime(pattern)}_B04.tif"
    assert date_of(Path(name), pattern).strftime(pattern) == moment.strftime(pattern)


class Doubled(torch.nn.Module):
    """Two levels; it counts what it is asked to encode."""

    seen = 0

    def forward(self, image):
        self.seen += len(image)
        return [image, 2 * image[..., ::2, ::2]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=4))
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_missing_dates_are_not_encoded_and_take_no_part(reduce, present):
    image = torch.randn(len(present), 4, 2, 4, 4) - 5  # below zero: a missing date taken for zeros would be the maximum
    there, encoder = torch.tensor(present), Doubled()
    found = over_dates(encoder, image, there, reduce)
    assert encoder.seen == int(there.sum())
    for number, dates in enumerate(there):
        own = image[number][dates]
        expected = own.mean(dim=0) if reduce == "mean" else own.amax(dim=0)
        assert torch.allclose(found[0][number], expected, atol=1e-5)
        assert torch.allclose(found[1][number], 2 * expected[..., ::2, ::2], atol=1e-5)
