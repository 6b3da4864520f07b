"""`gfm predict` over scenes: where the map lies, what it holds, and that it is what the test scoring would say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gfm.downstream.adapted import load_adapted
from gfm.downstream.job import prepare
from gfm.downstream.table import read_index
from gfm.downstream.tasks import Batch
from gfm.layout import task_folder
from gfm.models.weights_hash import sha256_of
from gfm.params import load

PLACE = {"crs": "EPSG:32631", "transform": Affine(0.5, 0.1, 500_000, 0.1, -0.5, 4_600_000)}  # turned, too
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def _scene(path, pixels, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "count": count, "dtype": pixels.dtype, "height": height, "width": width} | profile
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def _read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.profile


def _logits(model, *chips):
    image = torch.stack([torch.from_numpy(chip.transpose(2, 0, 1).copy()) for chip in chips])[None]
    with torch.no_grad():
        return model.predict(Batch(image, torch.empty(0)))[0].numpy()


def test_a_scene_gives_a_map_on_its_own_grid_with_names_colours_and_origin(workplace, adapted):
    model = adapted("segmentation")
    scene = _scene(Path("scene.tif"), workplace.noise(70, 101), **PLACE)
    code, printed = workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "maps", "--probabilities")
    assert code == 0 and "1 scene" in printed, printed
    with rasterio.open("maps/scene.tif") as found, rasterio.open(scene) as given:
        assert (found.width, found.height, found.crs, found.transform) == (101, 70, given.crs, given.transform)
        assert found.profile["tiled"] and found.profile["compress"] == "deflate" and found.dtypes == ("uint8",)
        assert found.nodata == 255 and set(np.unique(found.read())) <= {0, 1, 2}
        assert found.colormap(1)[1] == (240, 228, 66, 255) and found.colormap(1)[255][3] == 0
        tags = found.tags()
        assert {f"CLASS_{i}": name for i, name in enumerate(("ground", "roof", "water"))} == found.tags(1)
    assert "<Category>roof</Category>" in Path("maps/scene.tif.aux.xml").read_text()
    weights = task_folder("t", "teacher") / "seed-0.safetensors"
    assert tags["GFM_TASK"] == "t" and tags["GFM_SEED"] == "0" and tags["GFM_WEIGHTS_SHA256"] == sha256_of(weights)
    run = json.loads(Path("maps/run.json").read_text())
    assert run["weights"] == {weights.as_posix(): sha256_of(weights)} and run["model"] == "teacher"
    assert run["provenance"]["seed"] == 0 and run["scenes"][0]["windows"] == 4 * 3
    shares, profile = _read("maps/scene_probabilities.tif")
    assert profile["dtype"] == "float32" and shares.shape == (3, 70, 101)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(shares.argmax(axis=0), _read("maps/scene.tif")[0][0])
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".maps")) == []
    assert model.spec.mask_px == 32


@pytest.mark.parametrize("fixture_size", [(20, 24)])
def test_a_test_chip_is_predicted_exactly_as_the_test_scoring_does(buildings, fixture_size):
    """From the fine-tuning of a real task, whose chips are no squares: the padding is that of the scoring."""
    workplace = buildings()
    assert workplace.gfm("index")[0] == 0
    assert workplace.gfm("finetune", "buildings", "teacher")[0] == 0
    code, printed = workplace.gfm(
        "predict", "buildings", "teacher", "raw/b/east/images", "--out", "maps", "--probabilities"
    )
    assert code == 0 and "note:" not in printed, printed
    params = load(Path("params.yaml"))
    job = prepare(params, "buildings", "teacher", read_index("buildings"))
    model = load_adapted(task_folder("buildings", "teacher"), 0)
    height, width = fixture_size
    for number, sample in enumerate(job.parts["test"].samples):
        with torch.no_grad():
            logits = model.predict(job.parts["test"][number])[0, :, :height, :width]
        name = Path(sample.id).stem
        shares, _ = _read(f"maps/{name}_probabilities.tif")
        np.testing.assert_allclose(shares, logits.softmax(dim=0).numpy(), atol=1e-5)
        np.testing.assert_array_equal(_read(f"maps/{name}.tif")[0][0], logits.argmax(dim=0).numpy())


def test_each_pixel_of_a_large_scene_is_the_weighted_mean_of_the_windows_that_see_it(workplace, adapted):
    model = adapted("regression")
    pixels = workplace.noise(32, 48)
    _scene(Path("scene.tif"), pixels)
    assert workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "maps", "--overlap", "0.5")[0] == 0
    found, profile = _read("maps/scene.tif")
    first, second = _logits(model, pixels[:, :32])[0], _logits(model, pixels[:, 16:])[0]
    ramp = np.minimum(np.arange(32) + 0.5, 31.5 - np.arange(32))
    expected = np.zeros((32, 48))
    expected[:, :16], expected[:, 32:] = first[:, :16], second[:, 16:]
    falls, rises = ramp[16:], ramp[:16]
    expected[:, 16:32] = (first[:, 16:] * falls + second[:, :16] * rises) / (falls + rises)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert profile["dtype"] == "float32" and np.isnan(profile["nodata"]) and profile["crs"] is None


def test_a_regression_says_its_unit(workplace, adapted):
    adapted("regression")
    _scene(Path("scene.tif"), workplace.noise(32, 32))
    workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "maps")
    with rasterio.open("maps/scene.tif") as found:
        assert found.units == ("t/ha",) and found.descriptions == ("t",)


def test_a_scene_smaller_than_a_window_is_mirrored_and_comes_out_in_its_own_size(workplace, adapted):
    model = adapted("segmentation")
    pixels = workplace.noise(9, 20)
    _scene(Path("small.tif"), pixels)
    code, printed = workplace.gfm("predict", "t", "teacher", "small.tif", "--out", "maps", "--probabilities")
    assert code == 0, printed
    whole = np.pad(pixels, [(0, 23), (0, 12), (0, 0)], mode="reflect")
    expected = torch.from_numpy(_logits(model, whole)).softmax(dim=0)[:, :9, :20]
    np.testing.assert_allclose(_read("maps/small_probabilities.tif")[0], expected, atol=1e-5)


@pytest.mark.parametrize("declared", [True, False])
def test_nodata_stays_nodata_whether_declared_or_said_by_the_file(workplace, adapted, declared):
    adapted("segmentation", imagery={"nodata": 0} if declared else {})
    pixels = workplace.noise(40, 90) // 2 + 1
    pixels[5:20, 3:] = 0
    pixels[30, 7, 0] = 0  # one band alone: a measurement
    _scene(Path("scene.tif"), pixels, **({} if declared else {"nodata": 0}))
    assert workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "maps", "--probabilities")[0] == 0
    lacking = (pixels == 0).all(axis=-1)
    np.testing.assert_array_equal(_read("maps/scene.tif")[0][0] == 255, lacking)
    np.testing.assert_array_equal(np.isnan(_read("maps/scene_probabilities.tif")[0]).all(axis=0), lacking)


def test_what_a_mask_inside_the_file_leaves_out_is_nodata(workplace, adapted):
    adapted("segmentation")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        _scene(Path("scene.tif"), workplace.noise(40, 50))
        with rasterio.open("scene.tif", "r+") as file:
            mask = np.full((40, 50), 255, np.uint8)
            mask[:, 45:] = 0
            file.write_mask(mask)
    assert workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "maps")[0] == 0
    np.testing.assert_array_equal(_read("maps/scene.tif")[0][0] == 255, mask == 0)


def test_a_scene_of_nothing_but_nodata_is_never_looked_at(workplace, adapted, monkeypatch):
    adapted("segmentation", imagery={"nodata": 0})
    _scene(Path("empty.tif"), np.zeros((50, 60, 3), np.uint8))
    monkeypatch.setattr("gfm.downstream.prediction.model.Predictor.logits", None)
    code, printed = workplace.gfm("predict", "t", "teacher", "empty.tif", "--out", "maps")
    assert code == 0 and "note: empty: is nodata throughout" in printed
    assert (_read("maps/empty.tif")[0] == 255).all()


@pytest.mark.parametrize("fine", [128, 80])
def test_super_resolution_gives_a_finer_image_of_the_same_ground_as_it_is_stored(workplace, adapted, fine):
    model = adapted("super-resolution", fine=fine, imagery={"dtype": "uint16", "scale": 1 / 2000, "nodata": 0})
    pixels = workplace.noise(32, 50).astype(np.uint16) * 4 + 1
    pixels[:10, 40:] = 0
    _scene(Path("coarse.tif"), pixels, **PLACE)
    code, printed = workplace.gfm("predict", "t", "teacher", "coarse.tif", "--out", "fine")
    assert code == 0, printed
    found, profile = _read("fine/coarse.tif")
    assert found.shape == (3, fine, fine * 50 // 32) and found.dtype == np.uint16 and profile["nodata"] == 0
    assert profile["transform"].almost_equals(PLACE["transform"] @ Affine.scale(32 / fine))
    rows, columns = (((np.arange(side) + 0.5) * 32 / fine).astype(int) for side in found.shape[1:])
    np.testing.assert_array_equal((found == 0).all(axis=0), (pixels == 0).all(axis=-1)[rows[:, None], columns])
    seen = np.floor(np.clip(pixels / 2000, 0, 1) * 255 + 0.5).astype(np.uint8)[:, :32]
    expected = _logits(model, seen)[:, :, :40].clip(0, 1) * 2000  # that only the first window sees
    np.testing.assert_allclose(found[:, :, :40], np.maximum(expected, 1), atol=0.51)  # 0 would say nodata


def test_pairs_of_dates_give_a_map_of_change(workplace, adapted):
    model = adapted("change")
    before, after = workplace.noise(32, 32), workplace.noise(32, 32)
    for year, pixels in ((2020, before), (2024, after)):
        _scene(Path(f"{year}/town.tif"), pixels, **PLACE)
    code, printed = workplace.gfm("predict", "t", "teacher", "2020/town.tif", "2024/town.tif", "--out", "maps")
    assert code == 0, printed
    found, profile = _read("maps/town.tif")
    np.testing.assert_array_equal(found[0], _logits(model, before, after).argmax(axis=0))
    assert profile["transform"] == PLACE["transform"]
    assert workplace.gfm("predict", "t", "teacher", "2020", "2024", "--out", "folders")[0] == 0
    np.testing.assert_array_equal(_read("folders/town.tif")[0], found)


def test_dates_that_do_not_fit_are_refused_by_name(workplace, adapted):
    adapted("change")
    _scene(Path("a/x.tif"), workplace.noise(32, 32), **PLACE)
    _scene(Path("b/x.tif"), workplace.noise(32, 33), **PLACE)
    _scene(Path("c/x.tif"), workplace.noise(32, 32), **PLACE | {"transform": Affine(0.5, 0, 500_009, 0, -0.5, 4e6)})
    for folder, words in (("b", "is 33x32 px, x.tif is 32x32; cut both"), ("c", "covers other ground than x.tif")):
        code, printed = workplace.gfm("predict", "t", "teacher", "a/x.tif", f"{folder}/x.tif", "--out", "maps")
        assert code == 2 and f"{folder}/x.tif: {words}" in printed and not Path("maps").exists()
    assert "pairs: BEFORE AFTER" in workplace.gfm("predict", "t", "teacher", "a/x.tif", "--out", "maps")[1]
    _scene(Path("b/y.tif"), workplace.noise(32, 32))
    printed = workplace.gfm("predict", "t", "teacher", "a", "b", "--out", "maps")[1]
    assert "a and b: only one of them holds y.tif" in printed


def test_a_date_may_be_a_folder_with_a_geotiff_a_band(workplace, adapted, drawing):
    model = adapted("change", imagery={"dtype": "uint16", "scale": 1 / 255})
    dates = [workplace.noise(32, 32), workplace.noise(32, 32)]
    for number, pixels in enumerate(dates, start=1):
        for position, band in enumerate("RGB"):
            drawing.band(Path(f"city/imgs_{number}/T32_{band}.tif"), pixels[..., position])
    code, printed = workplace.gfm("predict", "t", "teacher", "city/imgs_1", "city/imgs_2", "--out", "maps")
    assert code == 0, printed
    found, profile = _read("maps/city.tif")
    np.testing.assert_array_equal(found[0], _logits(model, *dates).argmax(axis=0))
    assert profile["crs"].to_epsg() == 32631


def test_a_scene_stored_otherwise_than_in_training_is_read_as_the_task_declares_it_now(workplace, adapted, drawing):
    adapted("segmentation")
    pixels = workplace.noise(32, 32)
    drawing.picture(Path("chip.png"), pixels)
    assert workplace.gfm("predict", "t", "teacher", "chip.png", "--out", "as-trained", "--probabilities")[0] == 0
    params = Path("params.yaml").read_text()
    Path("other.yaml").write_text(params.replace("bands:", "bands:\n          NIR: 0.83", 1).replace("uint8", "uint16"))
    wider = np.concatenate([workplace.noise(32, 32)[..., :1], pixels], axis=-1).astype(np.uint16)
    _scene(Path("scene.tif"), wider)
    words = ("predict", "t", "teacher", "scene.tif", "--out", "maps", "--probabilities", "--params", "other.yaml")
    code, printed = workplace.gfm(*words)
    assert code == 0 and "note: tasks.t.data.imagery was another when the model was trained" in printed, printed
    found, _ = _read("maps/scene_probabilities.tif")
    np.testing.assert_array_equal(found, _read("as-trained/chip_probabilities.tif")[0])


def test_the_seed_that_validation_found_best_is_taken_unless_another_is_asked_for(workplace, adapted):
    adapted("segmentation", seeds=(0, 3))
    _scene(Path("scene.tif"), workplace.noise(32, 32))
    for words, seed in (((), 3), (("--seed", "0"), 0)):
        assert workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", f"m{seed}", *words)[0] == 0
        assert json.loads(Path(f"m{seed}/run.json").read_text())["seed"] == seed
    assert (
        "seed-7.safetensors: no such file"
        in workplace.gfm("predict", "t", "teacher", "scene.tif", "--out", "m7", "--seed", "7")[1]
    )


def test_weights_of_an_older_version_say_what_to_do(workplace, adapted):
    adapted("segmentation")
    path = task_folder("t", "teacher") / "seed-0.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["gfm"])
    del about["trained_on"]
    save_file(load_file(path), path, metadata={"gfm": json.dumps(about)})
    code, printed = workplace.gfm("predict", "t", "teacher", "x.tif", "--out", "maps")
    assert code == 2 and "made before it said what it was trained on; run `gfm finetune` again" in printed
