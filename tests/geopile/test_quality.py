"""What the grey levels of an image say, and which images are dropped for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydantic import ValidationError

from gfm.geopile import quality
from gfm.geopile.assemble import assemble
from gfm.geopile.quality import measure, verdict
from gfm.geopile.row import Row
from gfm.layout import COLLECTION, MANIFEST
from gfm.params import Params, Quality

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
GOOD = {"entropy_bits": 7.0, "contrast": 40.0, "sharpness": 500.0}


def alone(image: Pixels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.zeros(image.shape[:2], dtype=bool)


def checkerboard(side: int, low: int, high: int, square: int = 1) -> Pixels:
    y, x = np.mgrid[0:side, 0:side] // square
    return np.where((y + x) % 2, high, low).astype(np.uint8)[..., None]


def row(**changes: Any) -> Row:
    texts = dict.fromkeys(("id", "source", "place", "file", "pixel_hash", "dhash"), "x")
    absent = dict.fromkeys(("label", "gsd_m", "crs", "date", "bounds", "cloud_share"))
    return Row(**(texts | absent | {"width": 64, "height": 64, "nodata_share": 0.0} | GOOD | changes))


sides = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_both_measures_are_the_plain_variances_of_valid_pixels(data: st.DataObject) -> None:
    height, width = data.draw(sides)
    image = data.draw(arrays(np.uint8, (height, width, 1)))
    nodata = data.draw(arrays(np.bool_, (height, width)))
    found, levels = measure(image, nodata), image[..., 0].astype(int)
    edges = [
        levels[y - 1, x] + levels[y + 1, x] + levels[y, x - 1] + levels[y, x + 1] - 4 * levels[y, x]
        for y in range(1, height - 1)
        for x in range(1, width - 1)
        if not (nodata[y, x] or nodata[y - 1, x] or nodata[y + 1, x] or nodata[y, x - 1] or nodata[y, x + 1])
    ]
    assert found.contrast == pytest.approx(levels[~nodata].std() if (~nodata).any() else 0.0, abs=6e-5)
    assert found.sharpness == pytest.approx(np.var(edges) if edges else 0.0, abs=6e-5)


def test_the_measures_reach_their_stated_limits_and_not_beyond() -> None:
    image = checkerboard(64, 0, 255)
    assert measure(image, alone(image)) == (1.0, 127.5, 1_040_400.0)
    plain = np.full((64, 64, 3), 200, np.uint8)
    assert measure(plain, alone(plain)) == (0.0, 0.0, 0.0)


def test_a_large_sharp_image_is_summed_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3000, 2000, 1), dtype=np.uint8)
    levels = image[..., 0].astype(np.int64)
    middle = levels[1:-1, 1:-1]
    edges = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * middle
    number, total, squares = edges.size, int(edges.sum()), int((edges**2).sum())
    expected = round((number * squares - total**2) / number**2, 4)
    assert measure(image, alone(image)).sharpness == expected


def test_nodata_of_a_large_image_counts_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, nodata = rng.integers(0, 256, (60, 40, 1), dtype=np.uint8), rng.random((60, 40)) < 0.05
    whole = measure(image, nodata)
    monkeypatch.setattr(quality, "_BLOCK_PX", 120)  # three lines at once
    assert measure(image, nodata) == whole
    assert measure(image, None) == measure(image, alone(image)) != whole


def test_blur_takes_sharpness_and_a_brighter_image_keeps_both(picture: Callable[..., Pixels]) -> None:
    image = picture(1) // 2
    sharp, bright = measure(image, alone(image)), measure(image + 100, alone(image))
    assert bright.contrast == pytest.approx(sharp.contrast, abs=0.05)  # grey is rounded from three bands
    assert bright.sharpness == pytest.approx(sharp.sharpness, rel=0.01)
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 2))
    assert measure(blurred, alone(image)).sharpness < sharp.sharpness / 20


def test_the_edge_of_nodata_is_no_detail() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    nodata = alone(image)
    nodata[:30] = True
    image[nodata] = 0
    assert measure(image, nodata) == (0.0, 0.0, 0.0)
    assert measure(image, ~alone(image)) == (0.0, 0.0, 0.0)  # nothing is valid


def test_contrast_and_sharpness_are_judged_last_in_this_order() -> None:
    strict = Quality(min_contrast=50, min_sharpness=1000)
    assert verdict(row(), strict) == "low contrast"
    assert verdict(row(contrast=50.0), strict) == "blurred"
    assert verdict(row(contrast=50.0, sharpness=1000.0), strict) is None
    assert verdict(row(entropy_bits=0.5), strict) == "low entropy"
    assert verdict(row(nodata_share=0.5, entropy_bits=0.5), strict) == "nodata"
    assert verdict(row(width=8, nodata_share=0.5), strict) == "too small"
    clouds = Quality(max_cloud_share=0.2, min_contrast=50)
    assert verdict(row(cloud_share=0.21), clouds) == "cloudy"
    assert verdict(row(cloud_share=0.2), clouds) == verdict(row(), clouds) == "low contrast"  # no mask: not known
    assert verdict(row(cloud_share=1.0), Quality()) is None
    assert verdict(row(contrast=0.0, sharpness=0.0), Quality()) is None


@pytest.mark.parametrize("limits", [{"min_contrast": 127.6}, {"min_contrast": -1}, {"min_sharpness": -1}])
def test_limits_that_no_image_can_meet_or_miss_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Quality.model_validate(limits)


def parameters(**quality: float) -> Params:
    return Params.model_validate(
        {
            "paths": {"raw": "raw"},
            "geopile": {
                "workers": 1,
                "quality": quality,
                "sources": {"photos": {"format": "images", "root": "photos", "licence": "CC0"}},
            },
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {
                "t": {
                    "kind": "classification",
                    "data": {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}},
                }
            },
        }
    )


def test_hazy_and_blurred_images_are_dropped_only_where_limits_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Pixels]
) -> None:
    monkeypatch.chdir(tmp_path)
    good = picture(1)
    pictures = {"good": good, "hazy": picture(2) // 12 + 100, "soft": cv2.GaussianBlur(picture(3), (0, 0), 4)}
    Path("raw/photos").mkdir(parents=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(f"raw/photos/{name}.png")

    assemble(parameters())
    table = pd.read_parquet(MANIFEST).set_index("id")
    assert list(table.index) == ["photos/good.png", "photos/hazy.png", "photos/soft.png"]
    found = measure(good, alone(good))
    assert tuple(table.loc["photos/good.png", ["contrast", "sharpness"]]) == (found.contrast, found.sharpness)
    assert (table[["contrast", "sharpness"]] == table[["contrast", "sharpness"]].round(4)).all(axis=None)

    assemble(parameters(min_contrast=10.0, min_sharpness=20.0))
    assert list(pd.read_parquet(MANIFEST)["id"]) == ["photos/good.png"]
    summary = json.loads((COLLECTION / "summary.json").read_text())
    assert summary["sources"]["photos"]["dropped"] == {"blurred": 1, "low contrast": 1}
