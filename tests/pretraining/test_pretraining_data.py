"""Batches of crops: the same for a step in whatever order, worker or process it is asked for."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfm.errors import DataError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.params import Crop, Masking
from gfm.pretraining.batch import collate
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.crops import random_part, resize
from gfm.pretraining.data import CropDataset, FixedBatches, StepBatches, epoch_order, make_loader


def _dataset(seed: int = 0) -> CropDataset:
    return CropDataset(read_rows("train"), bands=3, px=32, crop=Crop(), seed=seed)


def cut(image: np.ndarray, px: int, crop: Crop, seed: int) -> tuple[torch.Tensor, bool]:
    part, flip = random_part(image, crop, np.random.default_rng(seed))
    return resize(part, crop, torch.empty(image.shape[2], px, px, dtype=torch.uint8)), flip


def test_only_training_rows_are_trained_on(folder):
    train, val = read_rows("train"), read_rows("val")
    assert (len(train), len(val)) == (16, 8)
    splits = {row["id"]: row["split"] for row in pq.read_table("data/splits/collection.parquet").to_pylist()}
    assert {splits[train.id(row)] for row in range(16)} == {"train"}


def test_a_split_of_another_collection_is_refused(folder):
    table = pq.read_table("data/splits/collection.parquet")
    pq.write_table(table.slice(1), "data/splits/collection.parquet")
    with pytest.raises(DataError, match=r"1 images of data/geopile/manifest.parquet are in no split; run `gfm split`"):
        read_rows("train")


def test_a_missing_split_names_the_command_to_run(folder):
    (folder / "data/splits/collection.parquet").unlink()
    with pytest.raises(DataError, match="run `gfm split` first"):
        read_rows("train")


def test_a_crop_depends_on_seed_epoch_and_image_alone(folder):
    first, second = _dataset(), _dataset()
    _ = second[0, 5]
    assert torch.equal(first[2, 3][0], second[2, 3][0])
    assert not torch.equal(first[2, 3][0], first[1, 3][0])
    assert not torch.equal(first[2, 3][0], _dataset(seed=1)[2, 3][0])
    assert first[0, 0][0].shape == (3, 32, 32) and first[0, 0][0].dtype == torch.uint8


def test_an_epoch_shows_every_image_at_most_once_and_drops_the_incomplete_batch():
    batches = list(StepBatches(10, batch_size=4, epochs=2, seed=0))
    assert len(batches) == 4
    for epoch in (0, 1):
        rows = [row for batch in batches[epoch * 2 : epoch * 2 + 2] for _, row in batch]
        assert len(set(rows)) == 8 and {e for batch in batches[epoch * 2 : epoch * 2 + 2] for e, _ in batch} == {epoch}


def test_equal_weights_of_any_size_leave_the_order_as_it_is_without():
    plain = list(StepBatches(50, batch_size=4, epochs=3, seed=7))
    assert list(StepBatches(50, batch_size=4, epochs=3, seed=7, weights=np.full(50, 2.5))) == plain


@given(
    kinds=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    rows=st.integers(1, 300),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_a_row_comes_as_often_as_its_weight_says_rounded_down_or_up(kinds, rows, seed, epoch):
    weights = np.resize(np.array(kinds), rows)
    order, again = epoch_order(rows, seed, epoch, weights)
    assert len(order) == rows
    expected, times = rows * weights / weights.sum(), np.bincount(order, minlength=rows)
    assert (times >= np.floor(expected - 1e-6)).all() and (times <= np.ceil(expected + 1e-6)).all()
    for row in range(rows):
        assert sorted(again[order == row]) == list(range(times[row]))


def test_images_of_weight_2_are_drawn_twice_as_often_and_never_with_the_same_crop(folder):
    weights = np.repeat([2.0, 1.0], [4, 12])
    batches = [list(StepBatches(16, batch_size=4, epochs=60, seed=s, weights=weights)) for s in (0, 0, 1)]
    assert batches[0] == batches[1] != batches[2]
    keys = [key for batch in batches[0] for key in batch]
    assert len(keys) == 16 * 60 == len(set(keys))
    rows = np.bincount([row for _, row in keys], minlength=16) / 60
    assert rows[:4].mean() == pytest.approx(2 * 16 / 20, abs=0.05)
    assert rows[4:].mean() == pytest.approx(16 / 20, abs=0.05)
    twice = next(row for row in range(4) if {(0, row), (60, row)} <= set(keys))
    assert not torch.equal(_dataset()[0, twice].image, _dataset()[60, twice].image)


def test_weighted_draws_are_shared_and_resumed_like_others():
    def drawn(**more):
        return StepBatches(10, batch_size=4, epochs=3, seed=0, weights=np.repeat([3.0, 1.0], 5), **more)

    whole = list(drawn())
    shares = [list(drawn(rank=rank, processes=2)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*shares, strict=True)] == whole
    resumed = drawn()
    resumed.first_step = 3
    assert list(resumed) == whole[3:]


def test_rows_have_the_weight_of_their_source(folder):
    rows = read_rows("train")
    (name,) = set(rows.table["source"].to_pylist())
    assert rows.weights({name: 2.5}).tolist() == [2.5] * 16
    assert rows.weights({}).tolist() == [1.0] * 16


def test_processes_share_each_batch_without_overlap():
    whole = list(StepBatches(10, batch_size=4, epochs=2, seed=0))
    shares = [list(StepBatches(10, batch_size=4, epochs=2, seed=0, rank=rank, processes=2)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*shares, strict=True)] == whole
    fixed = [batch for rank in (0, 1) for batch in FixedBatches(7, batch_size=2, rank=rank, processes=2)]
    assert sorted(row for batch in fixed for _, row in batch) == list(range(7))


def test_a_resumed_run_gets_exactly_the_batches_that_are_left():
    batches = StepBatches(10, batch_size=4, epochs=3, seed=0)
    whole = list(batches)
    batches.first_step = 3
    assert list(batches) == whole[3:]


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(folder):
    batches = StepBatches(16, batch_size=4, epochs=2, seed=0)
    for alone, shared in zip(
        make_loader(_dataset(), batches, workers=0), make_loader(_dataset(), batches, workers=2), strict=True
    ):
        assert torch.equal(alone[0], shared[0]) and torch.equal(alone[1], shared[1])


def test_crops_stay_inside_very_flat_images_and_keep_their_range():
    image = np.full((8, 400, 3), 7, np.uint8)
    for seed in range(20):
        crop, _ = cut(image, 16, Crop(), seed)
        assert crop.shape == (3, 16, 16) and (crop == 7).all()


@pytest.mark.parametrize("side", [20, 100, 130, 300])
def test_crops_are_resized_as_the_published_ones_are(side):
    image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    whole = {"scale": (1, 1), "ratio": (1, 1)}
    crop, _ = cut(image, 96, Crop(**whole), 0)
    published = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.abs(crop.permute(1, 2, 0).numpy().astype(int) - published).max() <= 1


@pytest.mark.parametrize("interpolation", ["antialiased", "linear"])
@pytest.mark.parametrize("px", [16, 32])
@pytest.mark.parametrize("bands", [1, 4, 5, 12])
def test_every_band_is_cropped_alike(bands, px, interpolation):
    image = np.random.default_rng(0).integers(0, 256, (90, 70, bands), dtype=np.uint8)
    crop = Crop(interpolation=interpolation)
    together, flip = cut(image, px, crop, 1)
    assert together.shape == (bands, px, px)
    for band in range(bands):
        alone, alike = cut(image[..., band : band + 1], px, crop, 1)
        assert torch.equal(together[band], alone[0]) and flip == alike


def test_reduced_decoding_shows_nearly_the_same_crops_of_large_jpegs(folder):
    """The first is large enough for half of its size, the second is not, the third is no JPEG."""
    dice = np.random.default_rng(0)
    images = [cv2.resize(dice.integers(0, 256, (9, 9, 3), dtype=np.uint8), (px, px)) for px in (300, 80, 300)]
    kinds = (".jpg", ".jpg", ".png")
    files = [cv2.imencode(kind, image)[1].tobytes() for kind, image in zip(kinds, images, strict=True)]
    (folder / "data/geopile/shards/00000.tar").write_bytes(b"".join(files))
    table = read_rows("train").table.slice(0, 3)
    sizes = [len(file) for file in files]
    table = table.set_column(table.column_names.index("offset"), "offset", [[0, sizes[0], sizes[0] + sizes[1]]])
    rows = Rows(table.set_column(table.column_names.index("size"), "size", [sizes]))
    whole, reduced, again = (
        CropDataset(rows, bands=3, px=64, crop=Crop(), seed=0, reduced=reduced) for reduced in (False, True, True)
    )
    apart = []
    for key in ((epoch, row) for row in range(3) for epoch in range(4)):
        one, other = whole[key], reduced[key]
        assert torch.equal(other.image, again[key].image) and one.flip == other.flip
        apart.append((one.image.float() - other.image.float()).abs().mean().item())
    assert 0 < np.mean(apart[:4]) < 4 and not any(apart[4:])


def test_a_batch_holds_its_samples_in_order(folder):
    dataset = _dataset()
    keys = [(0, 3), (2, 1), (0, 7)]
    batch, one_by_one = dataset.__getitems__(keys), collate([dataset[key] for key in keys])
    assert torch.equal(batch.images, one_by_one.images) and batch.images.is_contiguous()
    assert torch.equal(batch.rows, one_by_one.rows) and torch.equal(batch.flips, one_by_one.flips)


def test_the_device_flips_as_the_crop_says(folder):
    sample = _dataset()[0, 1]
    batch = collate([sample._replace(flip=False), sample._replace(flip=True)])
    plain, mirrored = batch.pictures
    assert torch.equal(plain, sample.image.float() / 255) and torch.equal(mirrored, plain.flip(-1))


def test_masks_depend_on_image_and_epoch_and_not_on_how_a_batch_is_divided(folder):
    def masked(batch: list[tuple[int, int]]) -> torch.Tensor:
        dataset = CropDataset(read_rows("train"), bands=3, px=64, crop=Crop(), seed=0, masking=Masking())
        masks = collate([dataset[key] for key in batch]).masks
        assert masks is not None
        return masks

    whole = masked([(0, row) for row in range(8)])
    assert torch.equal(whole[4:], masked([(0, row) for row in range(4, 8)]))
    assert not torch.equal(whole, masked([(1, row) for row in range(8)]))
    assert (whole.sum(dim=(1, 2)) == 3).all(), "0.6 of 4 blocks, rounded up"


def test_a_fixed_number_of_crops_comes_round_again_with_new_masks(folder):
    rows = read_rows("train")
    dataset = CropDataset(rows, bands=3, px=128, crop=Crop(), seed=0, masking=Masking(), crops=2)
    first, second, third = (dataset[epoch, 3] for epoch in range(3))
    assert torch.equal(first.image, third.image) and first.flip == third.flip
    assert not torch.equal(first.image, second.image)
    assert not torch.equal(first.mask, third.mask)


def test_parts_of_a_step_are_its_batch_in_order():
    whole = list(StepBatches(10, batch_size=4, epochs=2, seed=0))
    parts = list(StepBatches(10, batch_size=4, epochs=2, seed=0, parts=2))
    assert [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)] == whole


def test_bytes_that_are_no_image_name_the_image(folder):
    with pytest.raises(DataError, match="scenes/x: truncated or corrupt"):
        decode_image(b"\xff\xd8\xff broken", "scenes/x")
    with pytest.raises(DataError, match="scenes/x: not a readable JPEG, PNG or TIFF"):
        decode_image(b"broken", "scenes/x")


def test_a_shard_that_ends_too_early_is_named(folder):
    shard = folder / "data/geopile/shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=r"00000\.tar: ends before byte"):
        _dataset()[0, 15]


def test_a_reader_can_be_sent_to_another_process(folder):
    reader = ShardReader(folder / "data/geopile/shards")
    first = reader.bytes("00000.tar", 0, 10)
    assert pickle.loads(pickle.dumps(reader)).bytes("00000.tar", 0, 10) == first  # noqa: S301


def test_images_of_four_bands_come_back_in_their_order(folder):
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 4), dtype=np.uint8)
    data = cv2.imencodemulti(".tif", [np.ascontiguousarray(image[..., band]) for band in range(4)])[1].tobytes()
    assert np.array_equal(decode_image(data, "scenes/x"), image)
