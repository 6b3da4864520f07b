"""What is written to a shard is what is read from it, by offset or by any tar reader."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.errors import DataError
from gfm.geopile.cache import file_digest
from gfm.geopile.shards import Encoded, ShardWriter, cut_shards, encode, member_name, pack
from gfm.imagery.shard_reader import ShardReader, decode_image


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.binary(min_size=1, max_size=3000)), max_size=12))
def test_every_image_comes_back_from_its_offset(images: list[tuple[str, bytes]]) -> None:
    with TemporaryDirectory() as folder:
        shard = Path(folder) / "a.tar"
        with ShardWriter(shard) as writer:
            offsets = [writer.add(name, data, ".jpg") for name, data in images]
        reader = pickle.loads(pickle.dumps(ShardReader(shard.parent)))  # noqa: S301 - as a data loader sends it
        found = [reader.bytes("a.tar", offset, len(data)) for offset, (_, data) in zip(offsets, images, strict=True)]
        assert found == [data for _, data in images]
        with tarfile.open(shard) as tar:
            assert len(tar.getmembers()) == len(images)
        assert (writer.size, writer.digest) == (shard.stat().st_size, file_digest(shard))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.binary(min_size=1, max_size=3000)), max_size=5))
def test_images_are_packed_as_pythons_own_tar_writes_them(images: list[tuple[str, bytes]]) -> None:
    tar = b""
    for name, data in images:
        member = tarfile.TarInfo(member_name(name) + ".tif")
        member.size, member.mode = len(data), 0o644
        tar += member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    assert pack(Encoded(name, data, ".tif") for name, data in images).data == tar


def cut(marks: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    return [tuple(marks[part].tolist()) for part in cut_shards(marks, sizes, shard_mb=1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3000), st.sampled_from([1_000, 20_000, 700_000, 5_000_000]))
def test_shards_are_runs_of_about_the_size(seed: int, count: int, largest: int) -> None:
    dice = np.random.default_rng(seed)
    marks, sizes = dice.integers(0, 2**64, count, np.uint64), dice.integers(1, largest, count)
    shards = cut_shards(marks, sizes, shard_mb=1)
    assert [number for shard in shards for number in range(count)[shard]] == list(range(count))
    for shard in shards[:-1]:
        assert 5e5 <= sizes[shard].sum() < 2e6 + largest


def test_one_image_more_or_less_changes_the_shard_it_is_in_and_leaves_the_others() -> None:
    dice = np.random.default_rng(0)
    marks, sizes = dice.integers(0, 2**64, 20_000, np.uint64), dice.integers(10_000, 30_000, 20_000)
    before = cut(marks, sizes)
    assert 0.9e6 < sizes.sum() / len(before) < 1.1e6
    for gone in dice.integers(0, 20_000, 30):
        after = cut(np.delete(marks, gone), np.delete(sizes, gone))
        assert len(set(before) - set(after)) <= 4
    changed = [
        len(set(before) - set(cut(np.delete(marks, gone), np.delete(sizes, gone))))
        for gone in dice.integers(0, 20_000, 30)
    ]
    assert np.mean(changed) < 1.5


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
    with ShardWriter(tmp_path / "a.tar") as writer:
        offset = writer.add("a", b"12345", ".jpg")
    with pytest.raises(DataError, match=r"a\.tar.*gfm assemble"):
        ShardReader(tmp_path).bytes("a.tar", offset, 10**6)
    with pytest.raises(DataError, match=r"b\.tar.*gfm assemble"):
        ShardReader(tmp_path).bytes("b.tar", 0, 1)
