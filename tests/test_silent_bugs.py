"""Bugs that once gave wrong results, or a late failure, without a word; each stays mended."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from gfm.downstream.across_parts import same_ground
from gfm.downstream.formats import open_format
from gfm.geopile.sources import read_tiles
from gfm.imagery.footprint import Bounds, raster_bounds
from gfm.imagery.overlap import overlapping
from gfm.models.backbone import build_backbone, pyramid, pyramid_levels
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.params import ClassFoldersSource, Task


def test_features_may_be_tapped_at_the_last_stage_where_the_decoder_reads_too() -> None:
    """timm returns a map once however often it is asked for, so a tap at stage 4 stopped a pretraining at its start."""
    model = build_backbone("test_resnet", {}, image_px=64, bands=3, seed=0).eval()
    first, *_, last = pyramid_levels(model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = pyramid(model, [last, first, last], image)
    assert [tuple(m.shape[1:3]) for m in maps] == [
        (level.channels, 64 // level.stride) for level in (last, first, last)
    ]
    assert torch.equal(maps[0], maps[2])


def test_folded_batch_norm_is_frozen_before_anybody_calls_train(tmp_path: Path) -> None:
    """Lightning keeps the modes it finds, so a frozen batch norm that only `train()` froze learnt wrong statistics."""
    model = build_backbone("test_resnet", {}, image_px=32, bands=3, seed=0)
    card = EncoderCard(
        architecture="test_resnet",
        model_args={},
        image_px=32,
        bands=["R", "G", "B"],
        mean=[0.5] * 3,
        std=[0.5] * 3,
        batch_norm="frozen",
        origin="imported",
        licence="MIT",
    )
    save_encoder(tmp_path, model, card)
    encoder = load_encoder(tmp_path, image_px=32, seed=0)
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items() if "running" in key}
    encoder(torch.rand(4, 3, 32, 32))
    after = encoder.backbone.state_dict()
    assert before
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def _chip(path: Path, east: float, side: int = 16, crs: str = "EPSG:32631", metres: float = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", transform=from_origin(east, 0, metres, metres), **profile) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (3, side, side), dtype=np.uint8))


def _task(layout: str, kind: str) -> Task:
    split = {"val_share": 0.2, "test_share": 0.2}
    return Task.model_validate({"kind": kind, "data": {"format": layout, "root": "t", "split": split}})


def test_chips_of_geotiffs_in_class_folders_have_a_place_on_earth(tmp_path: Path) -> None:
    """They had none, so that the leakage guard never saw that a collection showed the ground of a test sample."""
    _chip(tmp_path / "t/farm/a.tif", 500_000)
    task = _task("class-folders", "classification")
    data = open_format("t", task, tmp_path)
    [cut] = data.cut(data.scenes()[0][0], ["R", "G", "B"])
    source = ClassFoldersSource(format="class-folders", root="t", licence="CC0")
    [tile] = read_tiles(source, tmp_path / "t", "farm/a.tif", 32)
    assert tile.bounds is not None
    assert tile.bounds == cut.sample.bounds
    assert len(overlapping(np.asarray([tile.bounds]), np.asarray([cut.sample.bounds]))) == 1


def test_parts_of_one_task_are_compared_by_ground(tmp_path: Path) -> None:
    """Only the collection was compared with a task; a task's own training chips could show its test chips' ground."""
    for name, east in (("a", 500_000), ("b", 500_080), ("c", 500_240)):
        _chip(tmp_path / f"t/farm/{name}.tif", east)
    data = open_format("t", _task("class-folders", "classification"), tmp_path)
    samples = [data.cut(scene, ["R", "G", "B"])[0].sample for scene in data.scenes()[0]]
    assert same_ground(["train", "test", "val"], samples, data.corners) == [(0, 1)]  # c touches b


def test_one_large_image_does_not_shrink_all_others(tmp_path: Path) -> None:
    """Chips are padded to the largest and then resized: one of 160 px made 16 px chips a tenth of their picture."""
    for name, side in (("a", 16), ("b", 16), ("large", 160)):
        _chip(tmp_path / f"t/images/{name}.tif", 500_000, side)
        (tmp_path / "t/masks").mkdir(exist_ok=True)
        _mask(tmp_path / f"t/masks/{name}.tif", side)
    data = open_format("t", _task("image-masks", "segmentation"), tmp_path)
    samples = [data.cut(scene, ["R", "G", "B"])[0].sample for scene in data.scenes()[0]]
    assert [samples[position].id for position in data.misfits(samples)] == ["images/large.tif"]


def _mask(path: Path, side: int) -> None:
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8") as file:
        file.write(np.ones((1, side, side), np.uint8))


@pytest.mark.parametrize("east", [190.0, -170.0, 550.0])
def test_ground_east_of_180_degrees_is_found_whichever_way_it_is_counted(tmp_path: Path, east: float) -> None:
    """Degrees from 0 to 360 were kept as they are and met nothing that is counted from -180."""
    _chip(tmp_path / "a.tif", east, crs="EPSG:4326", metres=0.01)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        bounds = raster_bounds(dataset)
    assert bounds == pytest.approx(Bounds(-170.0, -0.16, -169.84, 0.0))
    assert overlapping(np.asarray([bounds]), np.asarray([[190.1, -1, 191, 1]])).tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", ["file", "pipe", "link"])
def test_an_output_takes_the_place_of_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """`gfm sample /dev/null` moved the device away and made a folder of that name."""
    from gfm.errors import GfmError
    from gfm.sample.write import write_sample

    monkeypatch.chdir(tmp_path)
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(tmp_path / "nothing")

    def identity() -> tuple[int, int, int]:  # not the time of access: looking at a link changes it
        status = target.lstat()
        return status.st_ino, status.st_mode, status.st_mtime_ns

    before = identity()
    with pytest.raises(GfmError, match="target: is not a folder"):
        write_sample(target)
    assert identity() == before


def test_every_line_that_opens_an_encoder_by_timm_loads_its_weights() -> None:
    """Without `pretrained=True` timm builds the network of a folder with random weights, and says nothing."""
    root = Path(__file__).parents[1]
    texts = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    lines = [line for path in texts for line in path.read_text(encoding="utf-8").splitlines()]
    opened = [line for line in lines if 'create_model("local-dir:' in line]
    assert opened and all("pretrained=True" in line for line in opened)
