"""What is written to a shard is what is read from it, by offset or by any tar reader."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.errors import DataError
from gfm.geopile.shards import ShardWriter, encode, member_name
from gfm.imagery.shard_reader import ShardReader, decode_image


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1), st.binary(min_size=1, max_size=3000)), max_size=12), st.integers(1, 9000)
)
def test_every_image_comes_back_from_its_offset(images: list[tuple[str, bytes]], shard_bytes: int) -> None:
    with TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        with ShardWriter(shards, shard_bytes / 1e6) as writer:
            places = [writer.add(name, data, ".jpg") for name, data in images]
        reader = pickle.loads(pickle.dumps(ShardReader(shards)))  # noqa: S301 - as a data loader sends it
        assert [reader.bytes(place.shard, place.offset, place.size) for place in places] == [data for _, data in images]
        members = 0
        for path in sorted(shards.iterdir()):
            with tarfile.open(path) as tar:
                members += len(tar.getmembers())
        assert members == len(images)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_any_number_of_bands_survives(bands: int) -> None:
    image = np.add.outer(np.arange(40), np.arange(50))[..., None] + 9 * np.arange(bands)
    image = image.astype(np.uint8)
    data, suffix = encode(image, 95)
    assert suffix == (".jpg" if bands in (1, 3) else ".tif")
    decoded = decode_image(data, "image")
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).max() <= (3 if suffix == ".jpg" else 0)


def test_ids_that_differ_only_in_odd_characters_keep_their_own_names() -> None:
    names = {member_name(name) for name in ("a/b.png", "a_b.png", "a/b_png", "a/b png", "a" * 300, "a" * 301)}
    assert len(names) == 6
    assert all(len(name) < 95 and "." not in name and "/" not in name for name in names)


def test_a_shard_that_is_gone_or_cut_is_named_with_what_to_run(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 1) as writer:
        place = writer.add("a", b"12345", ".jpg")
    with pytest.raises(DataError, match=r"00000\.tar.*gfm assemble"):
        ShardReader(tmp_path).bytes("00000.tar", place.offset, 10**6)
    with pytest.raises(DataError, match=r"00009\.tar.*gfm assemble"):
        ShardReader(tmp_path).bytes("00009.tar", 0, 1)
