"""Crops that the device resizes are those of the loader, to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfm.params import Crop, Masking
from gfm.pretraining.collection import read_rows
from gfm.pretraining.crops import resize
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset, FixedBatches, make_loader
from gfm.pretraining.decoded_cache import DecodedCache
from gfm.pretraining.regions import LARGEST, Regions
from gfm.pretraining.run import pretrain
from gfm.pretraining.trainer import Processes

CPU = torch.device("cpu")


def parts_of(sizes: list[tuple[int, int]], bands: int, seed: int) -> list[np.ndarray]:
    dice = np.random.default_rng(seed)
    return [dice.integers(0, 256, (*size, bands), dtype=np.uint8) for size in sizes]


def gathered(parts: list[np.ndarray], px: int) -> Regions:
    return Regions.gather([torch.from_numpy(part).permute(2, 0, 1) for part in parts], px)


def by_the_loader(parts: list[np.ndarray], px: int) -> torch.Tensor:
    rooms = torch.empty(len(parts), parts[0].shape[2], px, px, dtype=torch.uint8)
    for part, room in zip(parts, rooms, strict=True):
        resize(part, Crop(), room)
    return rooms


@given(
    sizes=st.lists(st.tuples(st.integers(1, 128), st.integers(1, 128)), min_size=1, max_size=4),
    bands=st.sampled_from([1, 3, 4, 7]),
    seed=st.integers(0, 999),
)
def test_the_device_resizes_parts_of_any_size_as_the_loader_does(sizes, bands, seed):
    parts = parts_of(sizes, bands, seed)
    assert torch.equal(gathered(parts, 32).resized(), by_the_loader(parts, 32))


@pytest.mark.parametrize("levels", [[0, 255], [0, 1], [127, 128]])
def test_halves_between_two_levels_are_rounded_as_the_loader_rounds_them(levels):
    parts = [np.random.default_rng(0).choice(np.uint8(levels), (side, 2 * side, 3)) for side in (96, 128, 192)]
    assert torch.equal(gathered(parts, 96).resized(), by_the_loader(parts, 96))


def test_a_training_in_half_precision_gets_the_same_crops():
    parts = parts_of([(50, 60), (33, 70)], 3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gathered(parts, 32).resized(), by_the_loader(parts, 32))


def test_a_large_batch_is_resized_in_pieces(monkeypatch):
    monkeypatch.setattr("gfm.pretraining.regions._AT_ONCE", 2 * 64 * 96 * 3)
    parts = parts_of([(50, 60), (33, 70), (61, 90), (5, 5), (32, 32)], 3, 1)
    assert torch.equal(gathered(parts, 32).resized(), by_the_loader(parts, 32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bytes():
    parts = parts_of([(230, 250), (600, 500), (192, 192), (100, 300)], 3, 1)
    moved = gathered(parts, 192).to(torch.device("cuda"), non_blocking=True)
    assert torch.equal(moved.resized().cpu(), by_the_loader(parts, 192))


def crops(split: str, resize_on: str, decoded: bool = False, px: int = 64) -> CropDataset:
    rows = read_rows(split)
    cache = DecodedCache.of_collection(3, None, "pretrain.gfm")
    if decoded:
        cache.fill(Processes.from_environment(), threads=1)
    return CropDataset(
        rows,
        bands=3,
        px=px,
        crop=Crop(),
        seed=0,
        masking=Masking(),
        decoded=cache.of(rows) if decoded else None,
        resize_on=resize_on,
    )


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize(("split", "epoch"), [("train", 3), ("val", VALIDATION_EPOCH)])
def test_batches_are_the_same_wherever_they_are_resized(folder, split, epoch, decoded):
    batches = FixedBatches(len(read_rows(split)), batch_size=3, epoch=epoch)
    here, there = (make_loader(crops(split, where, decoded), batches, workers=0) for where in ("loader", "device"))
    for one, other in zip(here, there, strict=True):
        moved = other.to(CPU)
        assert isinstance(other.images, Regions) and torch.equal(one.images, moved.images)
        assert torch.equal(one.pictures, other.pictures) and torch.equal(one.masks, moved.masks)
        assert torch.equal(one.first(2).images, other.first(2).images)


@pytest.mark.slow
def test_worker_processes_send_the_same_parts(folder):
    batches = FixedBatches(16, batch_size=4, epoch=0)
    alone, shared = (make_loader(crops("train", "device"), batches, workers=workers) for workers in (0, 2))
    assert all(torch.equal(one.crops, other.crops) for one, other in zip(alone, shared, strict=True))


def test_parts_of_huge_images_do_not_fill_the_memory(folder):
    """The images are 70 x 80 px, their parts at least 45 a side."""
    for px in (8, 32):
        batch = crops("train", "device", px=px)
        batch.masking = None
        found, plain = batch.__getitems__([(0, 1), (0, 2)]), crops("train", "loader", px=px)
        plain.masking = None
        assert max(found.images.pixels.shape[1:3]) <= LARGEST * px + 31
        assert torch.equal(found.crops, plain.__getitems__([(0, 1), (0, 2)]).images)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gfm", "gfm-fast", "simmim", "distill"])
def test_a_training_ends_at_the_same_weights(folder: Path, teacher: Path, make_params, recipe: str) -> None:
    def weights(**run: object) -> bytes:
        settings = {"recipe": recipe, "epochs": 1, "schedule": {"warmup_epochs": 0}, **run}
        pretrain(make_params(settings), "gfm")
        return (folder / "models/encoders/gfm/model.safetensors").read_bytes()

    assert weights() == weights(resize_on="device")
