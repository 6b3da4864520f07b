"""The lossless form of images of many bands: exact, the same for every reader, and told when it is damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from gfm.errors import DataError
from gfm.imagery.band_tiff import decode_bands, encode_bands
from gfm.imagery.shard_reader import decode_image

Image = np.ndarray[Any, np.dtype[np.uint8]]


def made(height: int, width: int, bands: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 13), st.integers(0, 99))
def test_every_pixel_comes_back_here_and_from_rasterio(height: int, width: int, bands: int, seed: int) -> None:
    image = made(height, width, bands, seed)
    data = encode_bands(image[:, :, ::-1])
    assert np.array_equal(decode_image(data, "x"), image[:, :, ::-1])
    with rasterio.Env(), MemoryFile(data, filename="x.tif") as memory, memory.open() as dataset:
        assert np.array_equal(np.moveaxis(dataset.read(), 0, -1), image[:, :, ::-1])


def test_smooth_bands_take_less_than_their_pixels() -> None:
    image = np.add.outer(np.arange(64), np.arange(64))[..., None].repeat(4, axis=-1).astype(np.uint8)
    assert len(encode_bands(image)) < image.nbytes / 10


@pytest.mark.parametrize("harm", ["end", "strip", "directory", "size"])
def test_damage_is_an_error_that_names_the_image(harm: str) -> None:
    data = bytearray(encode_bands(made(20, 30, 4)))
    if harm == "end":
        del data[-10:]
    elif harm == "strip":
        at = data.index(b"\x28\xb5\x2f\xfd")  # where a Zstandard frame begins
        data[at : at + 4] = bytes(4)
    elif harm == "directory":
        del data[60:]
    else:
        data[18:22] = (1 << 30).to_bytes(4, "little")  # the width
    with pytest.raises(DataError, match=r"scenes/x: damaged TIFF .*; run `gfm assemble` again"):
        decode_image(bytes(data), "scenes/x")


def test_what_is_no_tiff_of_ours_is_left_to_others() -> None:
    assert decode_bands(b"") is None
    assert decode_bands(b"\x89PNG\r\n\x1a\n") is None
