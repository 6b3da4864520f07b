"""JPEGs that are decoded at a part of their size: which ones, to what, and what everything else stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from gfm.errors import DataError
from gfm.imagery.pictures import decode_jpeg
from gfm.imagery.shard_reader import decode_image


def smooth(height: int, width: int, bands: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 11, bands), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)).reshape(height, width, bands)


def jpeg(height: int, width: int, bands: int = 3) -> bytes:
    return simplejpeg.encode_jpeg(smooth(height, width, bands), quality=95, colorspace="RGB" if bands == 3 else "GRAY")


@given(height=st.integers(8, 700), width=st.integers(8, 700), enough=st.integers(4, 300))
def test_the_shorter_side_stays_long_enough_and_would_not_at_half_of_it(height, width, enough):
    found = decode_jpeg(jpeg(height, width), enough_px=enough)
    factor = next(f for f in (8, 4, 2, 1) if f == 1 or min(height, width) >= f * enough)
    assert found.shape == (-(-height // factor), -(-width // factor), 3)


@pytest.mark.parametrize("bands", [1, 3])
def test_what_comes_is_the_image_smaller(bands):
    found = decode_jpeg(jpeg(400, 600, bands), enough_px=150)
    means = smooth(400, 600, bands).reshape(200, 2, 300, 2, bands).mean(axis=(1, 3))
    assert found.shape == means.shape and np.abs(found - means).mean() < 1
    assert np.array_equal(found, decode_jpeg(jpeg(400, 600, bands), enough_px=150))


def test_images_that_are_no_jpegs_come_whole():
    image = smooth(400, 600)
    for kind in (".png", ".tif"):
        data = cv2.imencode(kind, image[..., ::-1])[1].tobytes()
        assert np.array_equal(decode_image(data, "x", 50), decode_image(data, "x"))


def test_a_cut_jpeg_is_still_noticed():
    with pytest.raises(DataError, match="x: truncated or corrupt"):
        decode_image(jpeg(400, 600)[:-500], "x", 50)
