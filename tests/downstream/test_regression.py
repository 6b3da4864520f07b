"""A number for every pixel: what is measured, which rasters are refused, and the whole task at toy size."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.downstream.adapted import load_adapted
from gfm.downstream.formats import open_format
from gfm.downstream.moments import Moments
from gfm.downstream.table import read_index
from gfm.downstream.tasks.numbers import Errors
from gfm.params import load

HIDDEN = -9999.0


def _task(**changes):
    data = {
        "format": "image-targets",
        "root": "agb",
        "imagery": {"nodata": 0},
        "target": {"nodata": HIDDEN, "scale": 0.5, "offset": 10.0, "unit": "t/ha"},
        "split": {"val": ["south"], "test": ["east"]},
    }
    return {"kind": "regression", "data": data | changes.pop("data", {}), **changes}


def _image(workplace, height=20, width=24):
    return workplace.dice.integers(1, 255, (height, width, 3), dtype=np.uint8)


def _draw(workplace, drawing, area, name, *, image=None, target=None, apart=0.0):
    """What is measured is the image's brightness, stored in float32."""
    image = _image(workplace) if image is None else image
    target = image.mean(axis=2, keepdims=True).astype(np.float32) if target is None else target
    east = 500_000 + 1_000 * sum(ord(letter) for letter in f"{area}{name}")
    drawing.tiff(workplace.raw / "agb" / area / f"images/{name}.tif", image, east)
    drawing.tiff(workplace.raw / "agb" / area / f"targets/{name}.tif", target, east + apart)


@pytest.fixture
def forests(workplace, drawing):
    for area in ("north", "south", "east"):
        for name in "abcd":
            _draw(workplace, drawing, area, name)
    workplace.declare(biomass=_task())
    workplace.encoders()
    return workplace


def _quarantine(workplace):
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    return {file.removeprefix("agb/north/"): reason for file, reason in workplace.quarantined().items()}


def _numbers(workplace, name):
    data = open_format("biomass", load().tasks["biomass"], workplace.raw)
    sample = next(row.sample for row in read_index("biomass").rows if row.sample.id == name)
    return data.numbers(sample, ["R", "G", "B"])[..., 0]


def test_targets_are_scaled_and_what_is_nodata_in_target_or_image_is_not_measured(forests, drawing):
    image = _image(forests)
    image[0, :] = 0
    target = np.full((20, 24, 1), 40, np.float32)
    target[:, 0] = HIDDEN
    _draw(forests, drawing, "north", "e", image=image, target=target)
    assert _quarantine(forests) == {}
    numbers = _numbers(forests, "north/images/e.tif")
    assert np.isnan(numbers[0]).all() and np.isnan(numbers[:, 0]).all() and (numbers[1:, 1:] == 30).all()
    summary = json.loads((forests.folder / "data/tasks/biomass.json").read_text())["numbers"]["train"]
    assert (
        summary["pixels"] == 4 * 20 * 24 + 19 * 23 and 10 <= summary["min"] < summary["mean"] < summary["max"] <= 137.5
    )


def test_nan_may_be_declared_as_nodata(forests, drawing):
    for area in ("north", "south", "east"):
        for name in "abcd":
            target = _image(forests).mean(axis=2, keepdims=True).astype(np.float32)
            target[:5] = np.nan
            _draw(forests, drawing, area, name, target=target)
    forests.declare(biomass=_task(data={"target": {"nodata": float("nan")}}))
    assert _quarantine(forests) == {}
    assert np.isnan(_numbers(forests, "north/images/a.tif")).sum() == 5 * 24


def test_targets_that_cannot_be_used_are_quarantined_with_their_reason(forests, drawing):
    plain = _image(forests).mean(axis=2, keepdims=True).astype(np.float32)
    gaps = plain.copy()
    gaps[3, 4:7] = np.nan
    for name, target, apart in (
        ("e", gaps, 0),
        ("f", np.full_like(plain, HIDDEN), 0),
        ("g", plain.astype(np.uint16), 0),
        ("h", np.repeat(plain, 2, axis=2), 0),
        ("i", plain[:-1], 0),
        ("j", plain, 6.0),
        ("k", plain, 4.0),
        ("l", plain, 0),
        ("m", plain, 0),
        ("n", plain, 0),
    ):
        _draw(forests, drawing, "north", name, target=target, apart=apart)
    north = forests.raw / "agb/north"
    (north / "targets/l.tif").unlink()
    (north / "images/m.tif").unlink()
    with rasterio.open(north / "targets/n.tif", "r+") as file:
        file.nodata = -1
    _draw(forests, drawing, "north", "o", image=_image(forests, 30, 30))
    assert _quarantine(forests) == {
        "targets/e.tif": "has 3 pixels that are NaN or infinite",
        "targets/f.tif": "holds no measured pixel, all is nodata",
        "targets/g.tif": "is uint16, declared float32",
        "targets/h.tif": "has 2 bands, 1 declared (target)",
        "targets/i.tif": "is 24x19 px, its image agb/north/images/i.tif is 24x20",
        "targets/j.tif": "covers other ground than its image",
        "images/l.tif": "no target targets/l.* beside it",
        "targets/m.tif": "no image images/m.* beside it",
        "targets/n.tif": "says that -1 is nodata, data.target.nodata says -9999.0",
        "images/o.tif": "is 30x30 px, most images of the task are 24x20; "
        "set tasks.biomass.data.chip_px to cut images of any size into chips",
    }


def test_images_of_any_size_are_cut_and_chips_without_a_measured_pixel_are_left_out(forests, drawing):
    target = np.full((20, 24, 1), HIDDEN, np.float32)
    target[:, 20:] = 5
    _draw(forests, drawing, "north", "e", target=target)
    forests.declare(biomass=_task(data={"chip_px": 16}))
    assert _quarantine(forests) == {}
    ids = {row.sample.id for row in read_index("biomass").rows if "/e.tif" in row.sample.id}
    assert ids == {"north/images/e.tif#16,0", "north/images/e.tif#16,16"}


@pytest.mark.parametrize(
    ("area", "why"),
    [
        ("north", "train is 12.5, so that there is nothing to learn"),
        ("south", "no epoch can be chosen"),
        ("east", "R2 is not defined"),
    ],
)
def test_constant_targets_of_a_part_stop_with_the_reason(forests, drawing, area, why):
    for name in "abcd":
        _draw(forests, drawing, area, name, target=np.full((20, 24, 1), 5, np.float32))
    code, printed = forests.gfm("index")
    assert code == 2 and "gfm: tasks.biomass: every measured pixel of" in printed and why in printed


def test_one_image_cannot_be_split(workplace, drawing):
    _draw(workplace, drawing, "", "a")
    workplace.declare(biomass=_task(data={"split": {"val_share": 0.3, "test_share": 0.3}}))
    code, printed = workplace.gfm("index")
    assert code == 2 and "tasks.biomass.data.split leaves no place to" in printed


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_the_task_learns_what_is_plain_to_see_and_says_so_in_its_unit(forests, drawing, mode):
    images = np.linspace(20, 230, 12)
    for area, levels in zip(("north", "south", "east"), images.reshape(4, 3).T, strict=True):
        for name, level in zip("abcd", levels, strict=True):
            noise = forests.dice.integers(-15, 15, (20, 24, 3))
            _draw(forests, drawing, area, name, image=(level + noise).astype(np.uint8))
    settings = drawing.short | {"epochs": 10, "max_steps_per_epoch": 6, "mode": mode, "lr": 0.01}
    forests.declare(biomass=_task(finetune=settings))
    forests.gfm("index")
    code, printed = forests.gfm("finetune", "biomass", "teacher")
    assert code == 0, printed
    folder = forests.folder / "models/tasks/biomass/teacher"
    scores = pd.read_csv(folder / "scores.csv").set_index(["split", "metric"])["score"]
    assert list(scores["test"].index) == ["r2", "rmse", "mae"]
    run = json.loads((folder / "run.json").read_text())
    assert run["reference"]["name"] == "train-mean" and run["reference"]["test"]["r2"] <= 0
    assert scores["test", "r2"] > 0.4 and scores["test", "rmse"] < run["reference"]["test"]["rmse"]
    assert (folder / "predictions.png").stat().st_size > 10_000
    assert load_adapted(folder, 0).spec.unit == "t/ha"


def test_scores_are_those_of_sklearn_over_measured_pixels_however_they_are_batched():
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    dice = torch.Generator().manual_seed(0)
    truth = 3000 + torch.randn(5, 1, 8, 8, generator=dice)  # far from zero: sums of squares lose their digits
    found = truth + 0.5 * torch.randn(truth.shape, generator=dice)
    truth[:, :, :, 5:] = torch.nan
    truth[2] = torch.nan
    pairs = truth[truth.isfinite()].double(), found[truth.isfinite()].double()
    expected = {
        "r2": r2_score(*pairs), "rmse": root_mean_squared_error(*pairs), "mae": mean_absolute_error(*pairs)
    }  # fmt: skip
    for size in (1, 2, 5):
        scores = Errors()
        for start in range(0, 5, size):
            scores.update(found[start : start + size], truth[start : start + size])
        assert scores.compute() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6))
def test_moments_of_parts_are_those_of_the_whole(parts):
    whole = np.concatenate([np.asarray(part, np.float32) for part in parts])
    told = Moments.together(Moments.of(np.asarray(part, np.float32)) for part in parts).as_dict()
    exact = whole.astype(np.float64)
    assert told["pixels"] == len(whole) and told["min"] == pytest.approx(exact.min(), rel=1e-5)
    assert told["mean"] == pytest.approx(exact.mean(), rel=1e-5, abs=1e-6)
    assert told["std"] == pytest.approx(exact.std(), rel=1e-4, abs=1e-6)


def test_a_scale_beyond_what_can_be_stored_is_said_and_not_taken_for_nodata(forests):
    forests.declare(biomass=_task(data={"target": {"scale": 1e300}}))
    code, printed = forests.gfm("index")
    assert code == 2 and "are too large for float32" in printed
