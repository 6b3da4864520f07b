"""Bands side by side and one after another hold the same numbers, whatever the type and however many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfm.imagery.planes import interleaved, planes_of

TYPES = ["uint8", "uint16", "int16", "int32", "uint32", "int64", "float16", "float32", "float64", "complex64"]


@given(st.sampled_from(TYPES), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_pixels_are_the_planes_side_by_side(dtype: str, bands: int, height: int, width: int, seed: int) -> None:
    planes = np.random.default_rng(seed).integers(0, 100, (bands, height, width)).astype(dtype)

    pixels = interleaved(planes)

    assert pixels.dtype == planes.dtype and pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.moveaxis(planes, 0, -1))
    back = planes_of(pixels)
    assert np.array_equal(back, planes)
    assert all(plane.flags.c_contiguous and plane.dtype == planes.dtype for plane in back)


@pytest.mark.parametrize("bands", [128, 129, 513])
def test_hyperspectral_images_have_more_bands_than_opencv_takes(bands: int) -> None:
    planes = np.arange(bands * 6, dtype=np.uint16).reshape(bands, 2, 3)

    assert np.array_equal(interleaved(planes), np.moveaxis(planes, 0, -1))
    assert np.array_equal(planes_of(interleaved(planes)), planes)


def test_planes_of_a_part_of_an_image() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[1:, ::2]

    assert np.array_equal(planes_of(pixels), np.moveaxis(pixels, -1, 0))
