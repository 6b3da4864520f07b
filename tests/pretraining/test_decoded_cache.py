"""The cache of decoded images: the crops of the shards, sized before it is made, made again when it must be."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gfm import layout
from gfm.errors import DataError, GfmError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.params import Crop
from gfm.pretraining import decoded_cache
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.data import CropDataset, FixedBatches, make_loader
from gfm.pretraining.decoded_cache import FOLDER, DecodedCache
from gfm.pretraining.run import pretrain
from gfm.pretraining.trainer import Processes

ALONE = Processes.from_environment()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK", 10)
    monkeypatch.setattr(decoded_cache, "SPARE_BYTES", 0)


def filled(px: int | None = None, bands: int = 3) -> DecodedCache:
    cache = DecodedCache.of_collection(bands, px, "pretrain.gfm")
    cache.fill(ALONE, threads=2)
    return cache


def crops(cache: DecodedCache | None, split: str = "train") -> CropDataset:
    rows = read_rows(split)
    return CropDataset(rows, bands=3, px=32, crop=Crop(), seed=0, decoded=cache.of(rows) if cache else None)


@pytest.mark.parametrize("split", ["train", "val"])
def test_crops_are_those_of_the_shards_to_the_bit(folder: Path, split: str) -> None:
    shards, decoded = crops(None, split), crops(filled(), split)
    for row in range(len(shards)):
        assert torch.equal(shards[1, row].image, decoded[1, row].image)
        assert shards[1, row].flip == decoded[1, row].flip
    assert sum(path.stat().st_size for path in FOLDER.glob("*/*.bin")) == 24 * 70 * 80 * 3


def test_worker_processes_read_the_same_crops(folder: Path) -> None:
    dataset = crops(filled())
    alone, shared = (
        [batch.images for batch in make_loader(dataset, FixedBatches(16, batch_size=4, epoch=0), workers=workers)]
        for workers in (0, 2)
    )
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))
    _ = dataset[0, 0]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0, 0].image, dataset[0, 0].image)  # noqa: S301


def test_larger_images_are_resized_once_to_the_ceiling(folder: Path) -> None:
    cache = filled(px=35)
    rows = read_rows("train")
    stored = decode_image(CropDataset(rows, bands=3, px=32, crop=Crop(), seed=0).reader.bytes(*rows.place(0)), "x")
    image = cache.of(rows).image(0)
    assert stored.shape == (70, 80, 3) and image.shape == (35, 40, 3)
    halved = stored.reshape(35, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(image - halved).max() <= 1, "two roundings"
    assert cache.folder != DecodedCache.of_collection(3, None, "pretrain.gfm").folder


def test_a_full_disk_is_refused_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)._replace(free=100_000)
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda _: usage)
    message = (
        r"pretrain\.gfm\.decoded_cache: .* would take 0\.00 GB for 24 decoded images, .* set pretrain\.gfm\.decoded_px"
    )
    with pytest.raises(GfmError, match=message):
        filled()
    assert not list(FOLDER.glob("*/*"))


def test_its_size_is_said_before_it_is_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = filled()
    assert cache.bytes == 24 * 70 * 80 * 3
    assert "0.00 GB for 24 decoded images, 0.00 GB of it to be made" in capsys.readouterr().out
    filled()
    assert "GB" not in capsys.readouterr().out, "nothing to make, nothing to say"


def test_another_manifest_is_another_cache_and_the_old_one_goes(folder: Path) -> None:
    before = filled().folder
    table = pq.read_table("data/geopile/manifest.parquet")
    pq.write_table(table.slice(0, 20), "data/geopile/manifest.parquet")
    after = filled().folder
    assert before != after and [path.name for path in FOLDER.iterdir()] == [after.name]


def test_a_kill_costs_the_block_in_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def dying(data: bytes, name: str) -> np.ndarray:
        decoded.append(name)
        if len(decoded) == 15:
            raise KeyboardInterrupt
        return decode_image(data, name)

    monkeypatch.setattr(decoded_cache, "decode_image", dying)
    cache = DecodedCache.of_collection(3, None, "pretrain.gfm")
    with pytest.raises(KeyboardInterrupt):
        cache.fill(ALONE, threads=1)
    assert [path.name for path in sorted(cache.folder.glob("*.bin"))] == ["000000.bin"]
    decoded.clear()
    monkeypatch.setattr(
        decoded_cache, "decode_image", lambda data, name: (decoded.append(name), decode_image(data, name))[1]
    )
    cache.fill(ALONE, threads=1)
    assert len(decoded) == 14 and not list(cache.folder.glob("*.new"))
    assert torch.equal(crops(None)[1, 15].image, crops(cache)[1, 15].image)


def test_a_cut_block_is_named_with_what_to_do(folder: Path) -> None:
    cache = filled()
    block = cache.folder / "000000.bin"
    block.write_bytes(block.read_bytes()[:-1])
    with pytest.raises(GfmError, match=r"000000\.bin: has not the 168000 bytes of its images; remove it"):
        crops(cache)[0, 0]


def test_a_manifest_that_is_wrong_about_a_size_names_the_image(folder: Path) -> None:
    table = pq.read_table("data/geopile/manifest.parquet").to_pandas()
    table.loc[3, "width"] = 81
    table.to_parquet("data/geopile/manifest.parquet")
    with pytest.raises(
        DataError, match=r"scenes/03\.png: is \(70, 80, 3\), but .* say \(70, 81, 3\); run `gfm assemble`"
    ):
        filled()


def fill_as(folder: Path, rank: int, count: int) -> None:
    """One process of several, in a process of its own."""
    decoded_cache.BLOCK, decoded_cache.SPARE_BYTES = 5, 0
    cache = DecodedCache.of_collection(3, None, "pretrain.gfm")
    cache.fill(Processes(rank, count, count), threads=1)
    assert len(list(cache.folder.glob("*.bin"))) == 5


@pytest.mark.slow
def test_processes_share_the_blocks_and_one_that_never_comes_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK", 5)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fill_as, args=(folder, rank, 3)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    cache = DecodedCache.of_collection(3, None, "pretrain.gfm")
    assert all(torch.equal(crops(None)[1, row].image, crops(cache)[1, row].image) for row in range(16))


@pytest.mark.slow
def test_a_training_from_the_cache_ends_at_the_same_weights(folder: Path, teacher: Path, make_params) -> None:
    def weights(**run: object) -> bytes:
        pretrain(make_params({"epochs": 1, "schedule": {"warmup_epochs": 0}, **run}), "gfm")
        return (folder / "models/encoders/gfm/model.safetensors").read_bytes()

    assert weights() == weights(decoded_cache=True)
    assert len(list(FOLDER.glob("*/key.json"))) == 1


def test_images_of_a_manifest_without_a_source_have_a_cache_of_their_own(folder: Path) -> None:
    """Some of them are in that manifest alone."""
    whole = filled()
    table = pq.read_table(layout.MANIFEST)
    variant = layout.manifest_without("a")
    variant.parent.mkdir()
    pq.write_table(table, variant)
    pq.write_table(table.slice(3), layout.MANIFEST)
    rows = read_rows("train", without="a")
    cache = DecodedCache.of_collection(3, None, "pretrain.gfm", variant)
    cache.fill(ALONE, threads=2)
    reader = ShardReader(layout.SHARDS)
    for row in range(len(rows)):
        shown = decode_image(reader.bytes(*rows.place(row)), rows.id(row))
        assert np.array_equal(cache.of(rows).image(row), shown)
    with pytest.raises(DataError, match=r"pretrain\.gfm: 3 of its images are not in"):
        DecodedCache.of_collection(3, None, "pretrain.gfm").of(Rows(table))
    filled()
    assert cache.folder.exists()  # of a manifest that is there
    assert whole.folder == cache.folder
