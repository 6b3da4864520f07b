"""Hashes tell equal pixels, equal looks and equal files from others, on every machine alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.imagery import hashing
from gfm.imagery.hashing import dhash, dihedral_dhashes, file_hash, hamming, pixel_hash

Image = np.ndarray[Any, np.dtype[np.uint8]]


@st.composite
def images(draw: st.DrawFn) -> Image:
    height, width, bands = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.sampled_from([1, 3, 4]))
    levels = draw(st.sampled_from([2, 256]))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, levels, (height, width, bands), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(images(), st.integers(0, 3), st.booleans())
def test_a_flipped_or_turned_copy_has_exactly_the_same_set_of_looks(image: Image, turns: int, flip: bool) -> None:
    copy = np.rot90(image, turns)
    copy = copy[:, ::-1] if flip else copy
    looks = dihedral_dhashes(image)
    assert looks[0] == dhash(image)
    assert sorted(dihedral_dhashes(copy)) == sorted(looks)
    assert dhash(copy) in looks


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_hamming_is_a_distance(a: int, b: int, c: int) -> None:
    x, y, z = (f"{n:016x}" for n in (a, b, c))
    assert hamming(x, x) == 0
    assert hamming(x, y) == hamming(y, x) == bin(a ^ b).count("1")
    assert hamming(x, z) <= hamming(x, y) + hamming(y, z)


def test_looks_are_the_same_on_every_machine() -> None:
    ramp = np.add.outer(np.arange(90), -2 * np.arange(100)).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert (dhash(ramp), pixel_hash(ramp)) == ("8080c0c060603030", "3d0c82384c2355923c2e86f39847297c")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_looks_compare_the_exact_means_of_equal_cells_however_large_an_image_is(
    height: int, width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 1), dtype=np.uint8)
    cut = image[..., 0].astype(int).repeat(8, axis=0).repeat(9, axis=1)  # so that no cell divides a pixel
    cells = cut.reshape(8, height, 9, width).mean(axis=(1, 3))
    means = np.floor(cells + 0.5)
    expected = np.packbits(means[:, 1:] > means[:, :-1]).tobytes().hex()
    with pytest.MonkeyPatch.context() as patch:
        for most in (1, 100, 1 << 20):  # pixels of a table
            patch.setattr(hashing, "_TABLE_PX", most)
            assert dhash(image) == expected


def test_a_compressed_copy_looks_the_same_and_another_picture_does_not() -> None:
    rng = np.random.default_rng(0)
    one, other = (cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (256, 256)) for _ in range(2))
    copy = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(one), quality=40))
    assert hamming(dhash(one), dhash(copy)) <= 3
    assert hamming(dhash(one), dhash(other)) >= 13
    assert pixel_hash(one) != pixel_hash(copy)


def test_the_same_bytes_in_another_shape_are_other_pixels() -> None:
    flat = np.arange(24, dtype=np.uint8)
    assert pixel_hash(flat.reshape(2, 4, 3)) != pixel_hash(flat.reshape(4, 2, 3))
    wide = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert pixel_hash(wide[:, ::2]) == pixel_hash(wide[:, ::2].copy())


def test_a_sample_of_files_changes_when_a_byte_moves_between_them(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"12")
    b.write_bytes(b"3")
    before = file_hash([a, b])
    assert before == file_hash([a, b]) != file_hash([b, a])
    a.write_bytes(b"1")
    b.write_bytes(b"23")
    assert file_hash([a, b]) != before
