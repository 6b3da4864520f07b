"""Files of a task as people really keep them: masks of all kinds, links, hidden files, tiny images, odd names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfm.downstream.formats.mask_file import foreground, read_mask
from gfm.downstream.table import read_index
from gfm.imagery.raster import ImageError

OSCD = Path(__file__).parents[2] / ".." / "shared" / "imagery" / "oscd"
SHAPE = np.pad(np.ones((6, 6), np.uint8), 5)


def _places(workplace):
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    return {row.sample.place for row in read_index("buildings").rows}


@pytest.mark.parametrize("compression", [None, "jpeg"])
def test_a_jpeg_mask_is_refused_since_its_values_are_not_exact(tmp_path, compression):
    path = tmp_path / ("mask.tif" if compression else "mask.png")  # the content tells, not the name
    Image.fromarray(SHAPE * 255).save(path, "TIFF" if compression else "JPEG", compression=compression)
    with pytest.raises(ImageError, match="is a JPEG, whose values are not exact; save it as PNG or TIFF"):
        read_mask(path)


def test_a_coloured_mask_is_refused_and_a_grey_one_of_any_mode_is_read(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.dstack([SHAPE * 255, SHAPE, SHAPE])).save(path)
    with pytest.raises(ImageError, match="is a colour picture, not class ids"):
        read_mask(path)
    for mode in ("1", "L", "LA", "RGB", "RGBA"):
        Image.fromarray(SHAPE * 255).convert(mode).save(path)
        assert np.array_equal(foreground(read_mask(path)), SHAPE), mode
    palette = Image.fromarray(SHAPE, "P")
    palette.putpalette([0, 0, 0, 200, 10, 30])
    palette.save(path)
    assert np.array_equal(read_mask(path), SHAPE)


def test_grey_edges_are_foreground_only_above_half():
    assert foreground(np.array([[0, 1, 127, 128, 255]])).tolist() == [[0, 0, 0, 1, 1]]
    assert foreground(np.array([[0, 1]])).tolist() == [[0, 1]]
    assert foreground(np.zeros((2, 2), np.uint8)).sum() == 0


@pytest.mark.field
@pytest.mark.skipif(not OSCD.is_dir(), reason="needs ../shared/imagery")
def test_every_citys_change_mask_says_what_its_geotiff_says():
    masks = sorted(OSCD.glob("*_labels/*/cm/cm.png"))
    assert len(masks) == 12
    for path in masks:
        exact = read_mask(path.with_name(f"{path.parent.parent.name}-cm.tif"))
        assert np.array_equal(foreground(read_mask(path)), exact == 2), path.parent.parent.name


def test_tiny_images_are_quarantined(buildings, drawing):
    workplace = buildings()
    for name, (height, width) in {"0": (1, 1), "1": (7, 40), "2": (8, 40)}.items():
        drawing.picture(workplace.raw / f"b/north/images/{name}.png", workplace.noise(height, width))
        drawing.picture(workplace.raw / f"b/north/masks/{name}.png", np.ones((height, width), np.uint8))
    _places(workplace)
    assert workplace.quarantined() == {
        "b/north/images/0.png": "is 1x1 px, the shorter side must have 8",
        "b/north/images/1.png": "is 40x7 px, the shorter side must have 8",
        "b/north/images/2.png": "is 40x8 px, most images of the task are 24x20; "
        "set tasks.buildings.data.chip_px to cut images of any size into chips",
    }


def test_linked_areas_are_found_and_loops_end(buildings):
    workplace = buildings()
    (workplace.raw / "b/north").rename(workplace.raw / "elsewhere")
    (workplace.raw / "b/north").symlink_to("../elsewhere")
    (workplace.raw / "b/again").symlink_to(".")
    (workplace.raw / "b/alias").symlink_to("south")
    assert _places(workplace) == {"north", "south", "east"}
    assert workplace.quarantined() == {}


def test_dangling_links_are_quarantined_and_hidden_files_are_not_data(buildings):
    workplace = buildings()
    north = workplace.raw / "b/north"
    (workplace.raw / "b/lost").symlink_to("nowhere")
    for lost in (north / "images/0.png", north / "masks/1.png"):
        lost.unlink()
        lost.symlink_to("nowhere.png")
    (north / "images/._2.png").write_bytes(b"Mac OS X")
    (north / "masks/.3.png").write_bytes(b"")
    _places(workplace)
    assert workplace.quarantined() == dict.fromkeys(
        ("b/lost", "b/north/images/0.png", "b/north/masks/1.png"), "no such file: a link to nothing"
    )


def test_folders_that_cannot_be_listed_are_quarantined(buildings, monkeypatch):
    workplace = buildings()
    (workplace.raw / "b/locked").mkdir()
    (workplace.raw / "b/west/images").mkdir(parents=True)
    (workplace.raw / "b/west/masks").mkdir()
    listing = Path.iterdir

    def forbidden(self):  # a test run by root may list everything
        if self.name == "locked" or self.match("west/images"):
            raise PermissionError(13, "Permission denied", str(self))
        return listing(self)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    _places(workplace)
    assert workplace.quarantined() == dict.fromkeys(("b/locked", "b/west/images"), "not readable: permission denied")


def test_a_class_behind_a_dangling_link_is_quarantined(workplace, drawing):
    for label in ("forest", "harbour"):
        for number in range(20):
            drawing.picture(workplace.raw / f"s/{label}/{number}.png", workplace.noise())
    (workplace.raw / "s/river").symlink_to("nowhere")
    data = {"format": "class-folders", "root": "s", "split": {"val_share": 0.3, "test_share": 0.3}}
    workplace.declare(scenes={"kind": "classification", "data": data})
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    assert workplace.quarantined() == {"s/river": "no such file: a link to nothing"}


def test_names_that_are_not_utf8_are_quarantined_readably(buildings):
    workplace = buildings()
    north = workplace.raw / "b/north"
    for kind in ("images", "masks"):
        (north / kind / "0.png").rename(north / kind / os.fsdecode(b"caf\xe9.png"))
    (north / "images" / os.fsdecode(b"\xff.png")).write_bytes((north / "images/1.png").read_bytes())
    _places(workplace)
    reasons = workplace.quarantined()
    assert reasons["b/north/images/caf\\udce9.png"] == "its name is not valid UTF-8"
    assert reasons["b/north/images/\\udcff.png"] == "no mask masks/\\udcff.* beside it"
