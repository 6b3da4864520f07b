"""A ceiling of an image's size keeps its shape and its bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfm.imagery.store_size import fitted, fitted_size


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_a_ceiling_holds_for_the_shorter_side_and_keeps_the_shape(height: int, width: int, px: int) -> None:
    low, high = sorted(fitted_size(height, width, px))
    assert low == min(px, height, width)
    assert abs(high / low - max(height, width) / min(height, width)) <= 0.5 / low + 1e-9
    assert fitted_size(*fitted_size(height, width, px), px) == fitted_size(height, width, px)


@pytest.mark.parametrize("bands", [1, 3, 5, 12])
def test_any_number_of_bands_is_resized(bands: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, bands), dtype=np.uint8)
    smaller = fitted(image, 20)
    assert smaller.shape == (20, 30, bands)
    assert np.abs(smaller - image.reshape(20, 2, 30, 2, bands).mean(axis=(1, 3))).max() <= 1, "two roundings"
    assert fitted(image, 40) is image
