"""`gfm index`: which samples a task has, what is refused and why."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from gfm.downstream.table import read_index
from gfm.imagery.hashing import dihedral_dhashes, pixel_hash


def _meta(workplace, task):
    return json.loads((workplace.folder / f"data/tasks/{task}.json").read_text())


def test_unusable_pairs_are_quarantined_with_their_reason_and_the_rest_is_indexed(buildings, drawing):
    workplace = buildings()
    north = workplace.raw / "b/north"
    (north / "masks/0.png").unlink()
    drawing.picture(north / "masks/1.png", np.zeros((20, 20), np.uint8))
    (north / "images/2.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    drawing.picture(north / "images/3.png", np.zeros((20, 24, 4), np.uint8))
    drawing.picture(north / "masks/stray.png", np.zeros((20, 24), np.uint8))
    code, printed = workplace.gfm("index")
    assert code == 0 and "train 2 in 1 places" in printed and "5 files quarantined" in printed
    reasons = workplace.quarantined()
    assert reasons["b/north/images/0.png"] == "no mask masks/0.* beside it"
    assert reasons["b/north/masks/1.png"] == "is 20x20 px, its image b/north/images/1.png is 24x20"
    assert "truncated" in reasons["b/north/images/2.png"]
    assert "4 bands" in reasons["b/north/images/3.png"]
    assert reasons["b/north/masks/stray.png"] == "no image images/stray.* beside it"
    meta = _meta(workplace, "buildings")
    assert meta["counts"] == {"train": 2, "val": 6, "test": 6} and meta["quarantined"] == 5 and meta["met"] == 19
    assert meta["places"] == {"train": ["north"], "val": ["south"], "test": ["east"]}


def test_an_area_with_only_images_or_only_masks_is_counted_and_named(buildings, drawing):
    workplace = buildings()
    for area, part in (("b/west", "images"), ("b/far/off", "masks")):
        for number in range(2):
            drawing.picture(workplace.raw / area / part / f"{number}.png", np.zeros((20, 24, 3), np.uint8))
    (workplace.raw / "b/images/empty").mkdir(parents=True)  # no images of an area
    code, printed = workplace.gfm("index")
    assert code == 0 and "2 files quarantined" in printed
    assert workplace.quarantined() == {
        "b/far/off/masks": "holds 2 files, but there is no folder images beside it",
        "b/west/images": "holds 2 files, but there is no folder masks beside it",
    }


def test_a_mask_of_0_and_255_read_as_class_ids_is_refused_with_the_fix(buildings, drawing):
    task = drawing.segmentation()
    task["data"]["foreground"] = "exact"
    workplace = buildings(**task)
    code, printed = workplace.gfm("index")
    assert code == 2 and "no usable sample for tasks.buildings, all 18 were refused" in printed
    assert "masks/0.png: holds the value 255, which is no class" in printed
    assert "or set tasks.buildings.data.foreground = above-zero" in printed


def test_why_most_files_cannot_be_used_is_said_before_what_follows_from_it(buildings, drawing):
    task = drawing.segmentation()
    task["data"]["foreground"] = "exact"
    workplace = buildings(**task)
    for area in ("north", "south"):
        drawing.picture(workplace.raw / f"b/{area}/masks/0.png", np.zeros((20, 24), np.uint8))
    drawing.picture(workplace.raw / "b/east/masks/0.png", np.zeros((20, 24), np.uint8))
    code, printed = workplace.gfm("index")
    told = "buildings: 15 of 18 cannot be used, 15 of them for the same reason: b/east/masks/1.png: holds the value 255"
    assert code == 2 and told in printed
    assert printed.index(told) < printed.index("the validation part shows no building")


def test_a_grey_mask_saved_as_rgba_counts_by_its_colour_not_by_its_alpha(buildings, drawing):
    workplace = buildings()
    rgba = np.zeros((20, 24, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[5:9, 5:9, :3] = 255
    drawing.picture(workplace.raw / "b/north/masks/0.png", rgba)
    assert workplace.gfm("index")[0] == 0
    from gfm.downstream.formats import open_format
    from gfm.params import load

    params = load()
    data = open_format("buildings", params.tasks["buildings"], workplace.raw)
    sample = next(row.sample for row in read_index("buildings").rows if row.sample.id == "north/images/0.png")
    assert data.mask(sample).sum() == 16


def test_the_index_holds_the_fingerprints_that_leak_detection_compares(buildings):
    workplace = buildings()
    workplace.gfm("index")
    import cv2

    row = read_index("buildings").rows[0]
    image = cv2.imread(str(workplace.raw / row.sample.inputs[0][0]))[..., ::-1]
    assert row.pixel_hashes == (pixel_hash(image),)
    assert row.dhashes == (tuple(dihedral_dhashes(image)),)


def test_two_runs_write_the_same_bytes(buildings):
    workplace = buildings()
    read = lambda: {p.name: p.read_bytes() for p in sorted((workplace.folder / "data/tasks").iterdir())}  # noqa: E731
    workplace.gfm("index")
    first = read()
    workplace.gfm("index")
    assert read() == first and len(first) == 3


def test_a_failed_index_leaves_the_old_one_and_no_half_of_a_new_one(buildings, drawing):
    workplace = buildings()
    workplace.gfm("index")
    before = (workplace.folder / "data/tasks/buildings.parquet").read_bytes()
    task = drawing.segmentation()
    task["data"]["split"] = {"val": ["south"], "test": ["west"]}
    workplace.declare(buildings=task)
    code, printed = workplace.gfm("index")
    assert code == 2 and "names west, which is no place; 3 places exist: east, north, south" in printed
    assert (workplace.folder / "data/tasks/buildings.parquet").read_bytes() == before
    assert [path.name for path in (workplace.folder / "data").iterdir()] == ["tasks"]


def test_a_test_image_copied_into_training_is_dropped_there_and_counted(buildings):
    workplace = buildings()
    for kind in ("images", "masks"):
        copied = (workplace.raw / "b/east" / kind / "0.png").read_bytes()
        (workplace.raw / "b/north" / kind / "copy.png").write_bytes(copied)
    _, printed = workplace.gfm("index")
    assert "1 duplicates of held-out samples dropped" in printed
    meta = _meta(workplace, "buildings")
    assert meta["duplicates"] == {"train": 1, "val": 0} and meta["counts"]["train"] == 6


def test_slippy_blocks_and_not_single_tiles_are_places(workplace, drawing):
    for x in range(8):
        for y in range(4):
            for kind in ("images", "masks"):
                pixels = workplace.noise() if kind == "images" else np.full((16, 16), 255, np.uint8)
                drawing.picture(workplace.raw / "b/area" / kind / f"OAM-{1000 + x}-{2000 + y}-21.png", pixels)
    split = {"val": ["area/b250_501"], "test": ["area/b251_501", "area/b251_500"]}
    data = {"georeference": "slippy", "block_tiles": 4, "split": split}
    task = drawing.segmentation()
    task["data"].update(data)
    workplace.declare(buildings=task)
    code, printed = workplace.gfm("index")
    assert code == 2 and "2 places exist: area/b250_500, area/b251_500" in printed
    task["data"].update(block_tiles=2, split={"val": ["area/b500_1000"], "test": ["area/b501_1000", "area/b501_1001"]})
    workplace.declare(buildings=task)
    assert workplace.gfm("index")[0] == 0
    rows = read_index("buildings").rows
    assert {row.split for row in rows if row.sample.place == "area/b500_1000"} == {"val"}
    assert sum(row.split == "val" for row in rows) == 4
    assert all(row.sample.bounds is not None for row in rows)


def test_presence_labels_follow_the_share_of_foreground(workplace, drawing):
    for area in ("north", "south", "east"):
        for number, rows in enumerate((0, 1, 8)):
            mask = np.zeros((16, 16), np.uint8)
            mask[:rows] = 255
            drawing.picture(workplace.raw / "b" / area / "images" / f"{number}.png", workplace.noise())
            drawing.picture(workplace.raw / "b" / area / "masks" / f"{number}.png", mask)
    task = drawing.segmentation(kind="classification", positive_class=None)
    task["data"]["presence_share"] = 0.1
    workplace.declare(presence=task)
    assert workplace.gfm("index")[0] == 0
    index = read_index("presence")
    assert index.classes == ["absent", "present"]
    labels = {row.sample.id: row.sample.labels for row in index.rows if row.sample.place == "north"}
    assert [labels[f"north/images/{i}.png"] for i in range(3)] == [("absent",), ("absent",), ("present",)]


def test_a_class_that_training_never_shows_is_said_and_recorded(buildings, drawing):
    workplace = buildings()
    for number in range(6):
        drawing.picture(workplace.raw / f"b/north/masks/{number}.png", np.zeros((20, 24), np.uint8))
    code, printed = workplace.gfm("index")
    assert code == 0 and "warning: buildings: train has no building, which cannot be learned" in printed
    assert _meta(workplace, "buildings")["absent"]["train"] == ["building"]


def test_a_validation_part_without_the_positive_class_is_refused_before_any_training(buildings, drawing):
    workplace = buildings()
    for number in range(6):
        drawing.picture(workplace.raw / f"b/south/masks/{number}.png", np.zeros((20, 24), np.uint8))
    code, printed = workplace.gfm("index")
    assert code == 2 and "tasks.buildings: the validation part shows no building, the positive_class" in printed
    assert "tasks.buildings.data.split.val" in printed


def test_a_validation_part_of_one_class_is_said(workplace, drawing):
    for number, (area, rows) in enumerate((a, r) for a in ("north", "south", "east") for r in (0, 8)):
        mask = np.zeros((16, 16), np.uint8)
        mask[: 0 if area == "south" else rows] = 255
        drawing.picture(workplace.raw / "b" / area / "images" / f"{number}.png", workplace.noise())
        drawing.picture(workplace.raw / "b" / area / "masks" / f"{number}.png", mask)
    task = drawing.segmentation(kind="classification", positive_class=None)
    task["data"]["presence_share"] = 0.1
    workplace.declare(presence=task)
    code, printed = workplace.gfm("index")
    assert code == 0 and "warning: presence: val shows absent only" in printed


def test_one_image_in_all_is_an_error_that_says_so(workplace, drawing):
    drawing.picture(workplace.raw / "s/forest/0.png", workplace.noise())
    data = {"format": "class-folders", "root": "s", "split": {"val_share": 0.2, "test_share": 0.2}}
    workplace.declare(scenes={"kind": "classification", "data": data})
    code, printed = workplace.gfm("index")
    assert code == 2 and "1 places exist: forest/0.png" in printed and printed.count("\n") == 1


def test_a_missing_root_names_the_parameter(workplace):
    data = {"format": "class-folders", "root": "nowhere", "split": {"val_share": 0.2, "test_share": 0.2}}
    workplace.declare(scenes={"kind": "classification", "data": data})
    code, printed = workplace.gfm("index")
    assert code == 2 and "raw/nowhere: no such folder; it is tasks.scenes.data.root under paths.raw" in printed


def test_indexing_loads_no_torch(buildings):
    buildings()
    script = "import sys; from gfm.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", script, "index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wavelength", [0.665, None])
def test_bands_of_another_name_match_by_colour_or_are_refused(buildings, drawing, wavelength):
    task = drawing.segmentation()
    task["data"]["imagery"] = {"bands": {"B04": wavelength, "B03": 0.56, "B02": 0.49}}
    workplace = buildings(**task)
    code, printed = workplace.gfm("index")
    if wavelength:
        assert code == 0
    else:
        assert code == 2 and "has none for the collection's R (0.665); it has B04 (no wavelength)" in printed


def test_one_class_in_all_is_an_error_that_says_so(workplace, drawing):
    for number in range(40):
        drawing.picture(workplace.raw / f"s/forest/{number}.png", workplace.noise())
    data = {"format": "class-folders", "root": "s", "split": {"val_share": 0.3, "test_share": 0.3}}
    workplace.declare(scenes={"kind": "classification", "data": data})
    code, printed = workplace.gfm("index")
    assert code == 2 and "all samples of tasks.scenes are of one class, forest" in printed
