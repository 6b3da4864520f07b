"""Tasks whose imagery lies as one GeoTIFF a band: OSCD pairs and BigEarthNet patches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from gfm.downstream.formats import open_format
from gfm.downstream.table import read_index
from gfm.params import load

CITIES = ("altair", "deneb", "vega")
BANDS = ("B04", "B03", "B02")


OTHERS = ("nomask", "noband", "wrongmask", "elsewhere", "ghost", "hidden")


def _east(city):
    """Each city lies somewhere else."""
    return 400_000 + 2_000 * (*CITIES, *OTHERS).index(city)


def _draw_city(workplace, drawing, city, *, size=(50, 70), second=None, mask_size=None):
    root = workplace.raw / "o"
    for date, shape in (("imgs_1", size), ("imgs_2", second or size)):
        for band in (*BANDS, "B01"):
            side = [-(-length // 6) for length in shape] if band == "B01" else shape
            values = workplace.dice.integers(500, 3000, side)
            path = root / "images" / city / date / f"T31_{date}_{band}.tif"
            drawing.band(path, values, _east(city), metres=60 if band == "B01" else 10)
    mask = np.zeros((*(mask_size or size), 4), np.uint8)
    mask[..., 3] = 255
    mask[10:40, 20:60, :3] = 255
    drawing.picture(root / "train_labels" / city / "cm" / "cm.png", mask)


def _task(**data):
    split = {"val": ["vega"], "test": ["deneb"]}
    return {
        "kind": "change",
        "positive_class": "change",
        "data": {"format": "oscd", "root": "o", "chip_px": 32, "split": split, **data},
    }


@pytest.fixture
def cities(workplace, drawing):
    for city in CITIES:
        _draw_city(workplace, drawing, city)
    workplace.declare(change=_task())
    return workplace


def test_a_city_is_cut_into_chips_with_smaller_ones_at_the_edge(cities):
    assert cities.gfm("index")[0] == 0
    rows = [row for row in read_index("change").rows if row.sample.place == "altair"]
    assert sorted(row.sample.window for row in rows) == [
        (0, 0, 32, 32), (0, 32, 32, 18), (32, 0, 32, 32), (32, 32, 32, 18), (64, 0, 6, 32), (64, 32, 6, 18)
    ]  # fmt: skip
    assert all(row.split == "train" and len(row.pixel_hashes) == len(row.dhashes) == 2 for row in rows)
    first = next(row.sample for row in rows if row.sample.id == "altair#0,0")
    assert first.bounds is not None and first.bounds.west < first.bounds.east
    assert [len(files) for files in first.inputs] == [3, 3]


def test_dates_of_different_size_stop_with_both_sizes_and_the_fix(cities, drawing):
    _draw_city(cities, drawing, "altair", second=(49, 70))
    code, printed = cities.gfm("index")
    assert code == 2
    assert (
        "gfm: o/images/altair: imgs_2 is 70x49 px, imgs_1 is 70x50; "
        "set tasks.change.data.align = resample to match the first date\n"
    ) in printed


def test_resample_brings_the_second_date_to_the_first_ones_grid(cities, drawing):
    _draw_city(cities, drawing, "altair", second=(49, 71))
    cities.declare(change=_task(align="resample"))
    assert cities.gfm("index")[0] == 0
    data = open_format("change", load().tasks["change"], cities.raw)
    for sample in read_index("change").part("train"):
        before, after = data.images(sample, BANDS)
        assert before.shape == after.shape == (*data.mask(sample).shape, 3)


def test_a_coarse_band_is_resampled_to_the_first_declared_bands_grid(cities):
    bands = {"B04": 0.665, "B03": 0.56, "B02": 0.49, "B01": 0.443}
    imagery = {"dtype": "uint16", "bands": bands, "scale": 1 / 3500}
    cities.declare(change=_task(imagery=imagery))
    code, printed = cities.gfm("index")
    assert code == 0, printed
    data = open_format("change", load().tasks["change"], cities.raw)
    sample = read_index("change").part("train")[0]
    images = data.images(sample, ["B01", "B04"])
    assert [image.shape for image in images] == [(32, 32, 2)] * 2
    assert all((image > 0).all() for image in images)


def test_a_city_without_mask_or_band_and_a_mask_of_another_size_are_quarantined(cities, drawing):
    for city in ("nomask", "noband", "wrongmask"):
        _draw_city(cities, drawing, city, mask_size=(50, 69) if city == "wrongmask" else None)
    (cities.raw / "o/train_labels/nomask/cm/cm.png").unlink()
    (cities.raw / "o/images/noband/imgs_2/T31_imgs_2_B03.tif").unlink()
    code, printed = cities.gfm("index")
    assert code == 0 and "3 files quarantined" in printed
    reasons = cities.quarantined()
    assert reasons["o/images/nomask"] == "no change mask train_labels/nomask/cm/cm.png"
    assert reasons["o/images/noband/imgs_2"] == "no file of band B03 (*_B03.tif)"
    assert reasons["o/train_labels/wrongmask/cm/cm.png"].startswith("is 69x50 px, its image")


def test_two_dates_of_different_ground_are_quarantined(cities, drawing):
    for city in ("elsewhere", "ghost", "hidden"):
        _draw_city(cities, drawing, city)
    for band in BANDS:
        path = cities.raw / f"o/images/elsewhere/imgs_2/T31_imgs_2_{band}.tif"
        with rasterio.open(path, "r+") as file:
            file.transform = from_origin(_east("elsewhere") + 50, 4_600_000, 10, 10)
    (cities.raw / "o/images/hidden/imgs_1/._T31_imgs_1_B04.tif").write_bytes(b"Mac OS X")
    lost = cities.raw / "o/images/ghost/imgs_1/T31_imgs_1_B04.tif"
    lost.unlink()
    lost.symlink_to("gone.tif")
    code, printed = cities.gfm("index")
    assert code == 0 and "2 files quarantined" in printed
    reasons = cities.quarantined()
    assert reasons == {
        "o/images/elsewhere/imgs_2/T31_imgs_2_B04.tif": "covers other ground than the first date",
        "o/images/ghost/imgs_1/T31_imgs_1_B04.tif": "no such file: a link to nothing",
    }
    assert {row.sample.place for row in read_index("change").rows} == {*CITIES, "hidden"}


def test_patches_carry_all_their_labels_and_their_place_on_earth(workplace, drawing):
    for number in range(12):
        folder = workplace.raw / "ben" / f"sample_{number}"
        for band in BANDS:
            drawing.band(folder / f"{band}.tif", workplace.dice.integers(0, 3000, (12, 12)), 500_000 + 1_000 * number)
        labels = ["Pastures", "Arable land"][: 1 + number % 2]
        (folder / "meta.json").write_text(json.dumps({"labels": labels}))
    (workplace.raw / "ben/sample_3/meta.json").write_text("{")
    (workplace.raw / "ben/sample_4/meta.json").write_text('{"labels": []}')
    split = {"val": ["sample_0", "sample_1"], "test": ["sample_2", "sample_5"]}
    workplace.declare(covers={"kind": "multilabel", "data": {"format": "bigearthnet", "root": "ben", "split": split}})
    code, printed = workplace.gfm("index")
    assert code == 0 and "2 files quarantined" in printed
    index = read_index("covers")
    assert index.classes == ["Arable land", "Pastures"]
    assert {row.sample.labels for row in index.rows} == {("Pastures",), ("Arable land", "Pastures")}
    assert all(row.sample.bounds is not None for row in index.rows)


def test_the_whole_pair_task_runs_through_the_command_line(cities):
    cities.encoders()
    cities.gfm("index")
    code, printed = cities.gfm("finetune", "change", "teacher")
    assert code == 0 and "change, teacher: test f1" in printed
    folder = cities.folder / "models/tasks/change/teacher"
    run = json.loads((folder / "run.json").read_text())
    rare, common = run["class_weights"][1], run["class_weights"][0]
    assert rare > common > 0 and (folder / "predictions.png").stat().st_size > 10_000
