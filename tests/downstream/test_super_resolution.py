"""Super-resolution over SpaceNet 2's layout: which ground is compared, what is scored, the whole task at toy size."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from gfm.downstream.adapted import load_adapted
from gfm.downstream.formats import open_format
from gfm.downstream.table import read_index
from gfm.downstream.tasks import Batch, TaskSpec, build_model
from gfm.downstream.tasks.super_resolution import Likeness, bicubic
from gfm.geopile.leakage import find_leaks
from gfm.models.encoder import load_encoder
from gfm.params import load

BANDS = ["R", "G", "B"]
IMAGERY = {"dtype": "uint16", "bands": {"R": 0.66, "G": 0.56, "B": 0.48}, "scale": 1e-3, "nodata": 0}
LOW, FACTOR, SHARP = 18, 4, 74  # the image shows 72 of the target's 74 pixels, as 162 of 650 in SpaceNet 2


def _task(**changes):
    data = {"format": "spacenet2", "root": "sn2", "imagery": IMAGERY, "split": {"val": ["paris"], "test": ["vegas"]}}
    return {"kind": "super-resolution", "data": data | changes.pop("data", {}), **changes}


def _scene(workplace, side=SHARP):
    """Smooth ground with edges, stored values 100 to 900."""
    coarse = workplace.dice.integers(100, 900, (side // 6 + 1, side // 6 + 1, 3))
    return np.kron(coarse, np.ones((6, 6, 1), int))[:side, :side].astype(np.uint16)


def _low(sharp):
    side = LOW * FACTOR
    blocks = sharp[:side, :side].reshape(LOW, FACTOR, LOW, FACTOR, 3)
    return blocks.mean(axis=(1, 3)).astype(np.uint16)


def _draw(workplace, drawing, area, name, *, sharp=None, low=None, east=None, target_east=None, metres=1.0):
    number = sum(ord(letter) for letter in f"{area}{name}")
    east = 500_000 + 3_000 * number if east is None else east
    sharp = _scene(workplace) if sharp is None else sharp
    root = workplace.raw / "sn2" / area
    drawing.tiff(root / f"MUL/MUL_{name}.tif", _low(sharp) if low is None else low, east, metres=4.0)
    drawing.tiff(root / f"PAN-MS/PAN-MS_{name}.tif", sharp, east if target_east is None else target_east, metres=metres)


@pytest.fixture
def towns(workplace, drawing):
    for area in ("shanghai", "paris", "vegas"):
        for name in ("img1", "img2"):
            _draw(workplace, drawing, area, name)
    workplace.declare(sharper=_task())
    workplace.encoders()
    return workplace


def _quarantine(workplace):
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    return workplace.quarantined()


def _data(workplace):
    return open_format("sharper", load().tasks["sharper"], workplace.raw)


def test_a_target_is_cut_to_the_ground_of_its_image_and_places_are_blocks_of_ground(towns):
    assert _quarantine(towns) == {}
    rows = read_index("sharper").rows
    assert {row.sample.window for row in rows} == {(0, 0, LOW, LOW)}
    assert {row.sample.target_window for row in rows} == {(0, 0, 72, 72)}
    assert len({row.sample.place for row in rows}) == 6
    assert {row.split: row.sample.place.split("/")[0] for row in rows} == {
        "train": "shanghai", "val": "paris", "test": "vegas"
    }  # fmt: skip
    numbers = _data(towns).numbers(rows[0].sample, BANDS)
    assert numbers.shape == (72, 72, 3) and numbers.dtype == np.float32 and 0.1 <= numbers.min() < numbers.max() <= 0.9


def test_without_georeference_the_edges_of_both_are_the_same_ground_at_a_factor_that_is_not_whole(towns):
    towns.declare(sharper=_task(data={"georeference": "none"}))
    assert _quarantine(towns) == {}
    rows = read_index("sharper").rows
    assert {row.sample.target_window for row in rows} == {(0, 0, SHARP, SHARP)}
    assert "vegas/MUL_img1" in {row.sample.place for row in rows} and rows[0].sample.bounds is None


def test_the_leakage_guard_knows_both_images(towns):
    towns.gfm("index")
    rows = {row.sample.id: row for row in read_index("sharper").rows}
    row = rows["vegas/MUL/MUL_img1.tif"]
    assert len(row.pixel_hashes) == len(row.dhashes) == 2
    columns = pd.read_parquet("data/tasks/sharper.parquet").to_dict("list")
    manifest = {"id": ["copy"], "pixel_hash": [row.pixel_hashes[1]], "dhash": ["0" * 16]}
    manifest |= {side: [None] for side in ("west", "south", "east", "north")}
    (leak,) = find_leaks(manifest, {"sharper": columns}, bits=3).leaks
    assert (leak.sample, leak.how) == ("vegas/MUL/MUL_img1.tif", "pixels")


def test_pixels_that_are_nodata_in_either_image_are_not_measured(towns, drawing):
    sharp = _scene(towns)
    low = _low(sharp)
    low[0, :] = 0
    low[5, 5, 0] = 0  # one band of three: a measurement
    sharp[-4:, :] = 0  # two of these lines lie beyond the image
    _draw(towns, drawing, "shanghai", "img9", sharp=sharp, low=low)
    assert _quarantine(towns) == {}
    sample = next(row.sample for row in read_index("sharper").rows if row.sample.id.endswith("img9.tif"))
    lacking = np.isnan(_data(towns).numbers(sample, BANDS)).all(axis=2)
    assert lacking[:FACTOR].all() and lacking[70:].all() and not lacking[FACTOR:70].any()


def test_an_image_that_shows_a_little_more_than_its_target_is_used_where_both_show_ground(towns, drawing):
    sharp = _scene(towns)
    _draw(towns, drawing, "shanghai", "img9", sharp=sharp[:70, :70], low=_low(sharp))
    assert _quarantine(towns) == {}
    sample = next(row.sample for row in read_index("sharper").rows if row.sample.id.endswith("img9.tif"))
    numbers = _data(towns).numbers(sample, BANDS)
    assert numbers.shape[:2] == (72, 72)
    assert np.isnan(numbers[70:]).all() and np.isnan(numbers[:, 70:]).all() and np.isfinite(numbers[:70, :70]).all()


def test_pairs_that_do_not_belong_together_are_quarantined_with_their_reason(towns, drawing):
    scene = _scene(towns)
    _draw(towns, drawing, "shanghai", "a", east=90_000, target_east=90_020)
    _draw(towns, drawing, "shanghai", "b", low=_low(scene)[:, :10], sharp=scene[:, :40])  # a smaller image
    _draw(towns, drawing, "shanghai", "c", sharp=_scene(towns, 82), metres=0.9)  # another factor than the others'
    _draw(towns, drawing, "shanghai", "d", metres=5.0)
    _draw(towns, drawing, "shanghai", "e", sharp=np.zeros_like(scene), low=_low(scene))
    _draw(towns, drawing, "shanghai", "f", sharp=scene.astype(np.uint8), low=_low(scene))
    _draw(towns, drawing, "shanghai", "g", sharp=scene[..., :2], low=_low(scene))
    _draw(towns, drawing, "shanghai", "h")
    _draw(towns, drawing, "shanghai", "i")
    root = towns.raw / "sn2/shanghai"
    (root / "PAN-MS/PAN-MS_h.tif").unlink()
    (root / "MUL/MUL_i.tif").unlink()
    drawing.tiff(root / "PAN-MS/PAN-MS_j.tif", scene, 80_000, metres=1.0, crs="EPSG:32632")
    drawing.tiff(root / "MUL/MUL_j.tif", _low(scene), 80_000, metres=4.0)
    found = {file.removeprefix("sn2/shanghai/"): reason for file, reason in _quarantine(towns).items()}
    apart = "make them a task of their own"
    assert found == {
        "PAN-MS/PAN-MS_a.tif": "covers other ground than its image",
        "MUL/MUL_b.tif": f"is 10x18 px, most images of the task are 18x18; {apart}",
        "MUL/MUL_c.tif": f"has a target that is 80x80 px, most images of the task are 72x72; {apart}",
        "PAN-MS/PAN-MS_d.tif": "has 0.8 pixels for each of its image sn2/shanghai/MUL/MUL_d.tif, "
        "it should have more than 1",
        "PAN-MS/PAN-MS_e.tif": "holds no measured pixel, all is nodata",
        "PAN-MS/PAN-MS_f.tif": "is uint8, declared uint16",
        "PAN-MS/PAN-MS_g.tif": "has 2 bands, 3 declared (R, G, B)",
        "MUL/MUL_h.tif": "no target PAN-MS/h.* beside it",
        "PAN-MS/PAN-MS_i.tif": "no image MUL/i.* beside it",
        "PAN-MS/PAN-MS_j.tif": "is in EPSG:32632, MUL_j.tif is in EPSG:32631",
    }  # fmt: skip


def test_a_target_of_another_shape_is_refused_where_nothing_is_georeferenced(towns, drawing):
    scene = _scene(towns)
    _draw(towns, drawing, "shanghai", "z", low=_low(scene), sharp=scene[:60])
    towns.declare(sharper=_task(data={"georeference": "none"}))
    reason = "is 74x60 px, its image sn2/shanghai/MUL/MUL_z.tif is 18x18: another shape"
    assert _quarantine(towns) == {"sn2/shanghai/PAN-MS/PAN-MS_z.tif": reason}


def test_a_single_pair_cannot_be_split_and_the_error_says_what_exists(workplace, drawing):
    _draw(workplace, drawing, "", "img1")
    workplace.declare(sharper=_task(data={"split": {"val_share": 0.2, "test_share": 0.3}}))
    code, printed = workplace.gfm("index")
    assert code == 2 and "tasks.sharper.data.split leaves no place to" in printed and "1 places exist" in printed


def test_the_task_runs_and_its_scores_stand_beside_bicubic(towns):
    towns.gfm("index")
    code, printed = towns.gfm("finetune", "sharper", "teacher")
    assert code == 0, printed
    folder = towns.folder / "models/tasks/sharper/teacher"
    run = json.loads((folder / "run.json").read_text())
    reference = run["reference"]
    assert (
        run["primary_metric"] == "psnr"
        and reference["name"] == "bicubic"
        and set(reference["test"]) == {"psnr", "ssim"}
    )
    assert f"(bicubic {reference['test']['psnr']:.3f})" in printed
    scores = pd.read_csv(folder / "scores.csv").set_index(["split", "metric"])["score"]
    assert scores["test", "psnr"] > reference["test"]["psnr"] - 1  # where it starts from
    assert (folder / "predictions.png").stat().st_size > 10_000
    model = load_adapted(folder, 0)
    data, sample = _data(towns), read_index("sharper").part("test")[0]
    image = torch.from_numpy(data.images(sample, BANDS)[0].transpose(2, 0, 1).copy())[None, None]
    with torch.no_grad():
        assert model(image).shape == (1, 3, 72, 72)


def test_an_index_of_pairs_is_the_same_bytes_again(towns):
    towns.gfm("index")
    path = towns.folder / "data/tasks/sharper.parquet"
    first = path.read_bytes()
    towns.gfm("index")
    assert path.read_bytes() == first


def _model(workplace, image_px=18, number_px=74, **more):
    workplace.encoders()
    encoder = load_encoder(workplace.folder / "models/encoders/teacher", image_px=32, seed=0)
    spec = TaskSpec("t", (), 1, 3, image_px, encoder_px=32, number_px=number_px, number_bands=3, **more)
    return build_model("super-resolution", encoder, spec)


@pytest.mark.parametrize("number_px", [19, 27, 74, 90])
def test_training_begins_at_bicubic_upsampling_at_any_factor(workplace, number_px):
    model = _model(workplace, number_px=number_px)
    image = torch.randint(0, 256, (2, 1, 3, 18, 18), dtype=torch.uint8)
    batch = Batch(image, torch.full((2, 3, number_px, number_px), torch.nan))
    assert torch.equal(model.predict(batch), model.refer(batch))
    assert model.refer(batch).shape == batch.target.shape
    assert float(model.loss(batch).detach()) == 0  # nothing is measured


def test_bicubic_is_pillows():
    from PIL import Image

    values = np.random.default_rng(0).random((9, 9), np.float32)
    expected = np.asarray(Image.fromarray(values, "F").resize((31, 31), Image.Resampling.BICUBIC))
    assert np.allclose(bicubic(torch.from_numpy(values)[None, None], (31, 31))[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("loss", [None, "l1", "mse"])
def test_the_loss_is_l1_unless_asked_otherwise_and_knows_no_nodata(workplace, loss):
    model = _model(workplace, loss=loss)
    batch = Batch(torch.zeros(1, 1, 3, 18, 18, dtype=torch.uint8), torch.full((1, 3, 74, 74), 0.5))
    batch.target[:, :, :70] = torch.nan
    value = model.loss(batch)
    value.backward()
    assert float(value.detach()) == pytest.approx(0.25 if loss == "mse" else 0.5)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_scores_are_those_of_torchmetrics_over_the_split():
    dice = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 3, 24, 24, generator=dice)
    found = (truth + 0.1 * torch.randn(truth.shape, generator=dice)).clamp(0, 1)
    for size in (1, 2, 5):
        scores = Likeness()
        for start in range(0, 5, size):
            scores.update(found[start : start + size], truth[start : start + size])
        got = scores.compute()
        assert got["psnr"] == pytest.approx(float(peak_signal_noise_ratio(found, truth, data_range=1.0)), abs=1e-4)
        ssim = structural_similarity_index_measure(found, truth, data_range=1.0)
        assert got["ssim"] == pytest.approx(float(ssim), abs=1e-5)


def test_nonsense_under_nodata_changes_no_score():
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    truth[:, :, :, 20:] = torch.nan
    found = truth.nan_to_num(0.5) * 0.9
    scores = []
    for value in (0.0, 1.0, torch.nan):
        nonsense = found.clone()
        nonsense[:, :, :, 20:] = value
        one = Likeness("ssim")
        one.update(nonsense, truth)
        scores.append(one.compute())
    assert scores[0] == scores[1] == scores[2] and list(scores[0]) == ["ssim", "psnr"]


def test_an_exact_copy_scores_a_finite_number():
    scores = Likeness()
    scores.update(torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5))
    assert scores.compute() == {"psnr": 100.0, "ssim": pytest.approx(1.0)}


@pytest.mark.slow
def test_the_samples_spacenet2_runs_as_it_lies_on_disk(workplace):
    from gfm.sample.tasks import spacenet_pair

    def block(number):
        return f"ground-1km-13758-885{number}"

    for number in range(1, 6):
        for name, content in spacenet_pair(number):
            path = workplace.raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    data = {"format": "spacenet2", "root": "SpaceNet2", "split": {"val": [block(7)], "test": [block(8)]}}
    short = {"seeds": [0], "epochs": 1, "max_steps_per_epoch": 1, "batch_size": 1}
    workplace.declare(sharper={"kind": "super-resolution", "data": data, "finetune": short})
    workplace.encoders()
    assert _quarantine(workplace) == {}
    assert {row.sample.target_window for row in read_index("sharper").rows} == {(0, 0, 648, 648)}
    code, printed = workplace.gfm("finetune", "sharper", "teacher")
    assert code == 0 and "sharper, teacher: test psnr" in printed
