"""Labels from CSV tables: a fault in a table is one error that names table and line, a missing row one image's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gfm.errors import DataError
from gfm.geopile.sources import list_files, read_tiles, stamp
from gfm.imagery.raster import ImageError
from gfm.params import ClassFoldersSource

SOURCE = ClassFoldersSource(
    format="class-folders", root=".", licence="x", include=["Images/*/*.png"], label_tables="labels/*.csv"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("port/a.png", "port/b.png", "field/c.png"):
        (tmp_path / "Images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "Images" / name), np.zeros((40, 40, 3), np.uint8))
    write(tmp_path, "field", "image,trees,water,field", "c.png,1,0,1")
    write(tmp_path, "port", "image,water,trees,field", "a.png,1,0,0", "b.png,1,1,0")
    return tmp_path


def write(root: Path, table: str, *lines: str, encoding: str = "utf-8") -> None:
    (root / "labels").mkdir(exist_ok=True)
    (root / f"labels/{table}.csv").write_bytes("\r\n".join(lines).encode(encoding))


def labels(root: Path, file: str) -> tuple[str, ...] | None:
    (tile,) = read_tiles(SOURCE, root, file, 32)
    return tile.labels


def test_an_image_has_its_row_s_labels_whatever_the_order_of_the_columns(root: Path) -> None:
    assert list_files("m", SOURCE, root) == ["Images/field/c.png", "Images/port/a.png", "Images/port/b.png"]
    assert labels(root, "Images/field/c.png") == ("field", "trees")
    assert labels(root, "Images/port/b.png") == ("trees", "water")


def test_a_byte_order_mark_blank_lines_spaces_and_rows_of_images_left_out_are_no_fault(root: Path) -> None:
    write(
        root,
        "port",
        "image, water ,trees,field",
        "",
        "a.png, 1,0,0",
        "b.png,0,0,0",
        "z.png,1,1,1",
        encoding="utf-8-sig",
    )
    list_files("m", SOURCE, root)
    assert labels(root, "Images/port/a.png") == ("water",)
    assert labels(root, "Images/port/b.png") == ()


def test_an_image_without_a_row_is_refused_alone(root: Path) -> None:
    write(root, "port", "image,water,trees,field", "a.png,1,0,0")
    list_files("m", SOURCE, root)
    assert labels(root, "Images/port/a.png") == ("water",)
    with pytest.raises(ImageError, match=r"has no row in labels/\*\.csv"):
        labels(root, "Images/port/b.png")


HEADER = "image,trees,water,field"
FAULTS: dict[str, tuple[list[str], str]] = {
    "unknown column": (["image,trees,water,ships", "a.png,1,0,0"], r"port\.csv line 2: label field is in one of"),
    "other separator": (["image;trees;water;field", "a.png;1;0;0"], r"port\.csv line 1: its columns are image;trees"),
    "empty table": ([""], r"port\.csv: empty file"),
    "column twice": (["image,trees,trees,field", "a.png,1,0,0"], r"line 1: .* wanted are .* all different"),
    "no number": ([HEADER, "a.png,1,0,0", "b.png,1,yes,0"], r"line 3: water of b\.png is 'yes'; write 0 or 1"),
    "count": ([HEADER, "a.png,2,0,0"], r"line 2: trees of a\.png is '2'; write 0 or 1"),
    "short row": ([HEADER, "a.png,1,0"], r"line 2: a\.png has 2 values, the header has 3 labels"),
    "nameless row": ([HEADER, ",1,0,0"], r"line 2: names no image"),
    "image twice": ([HEADER, "a.png,1,0,0", "a.png,0,0,0"], r"line 3: a\.png has a row already, .*port\.csv line 2"),
    "image of another table": ([HEADER, "c.png,1,0,0"], r"port\.csv line 2: c\.png has a row already, .*field\.csv"),
    "open quote": ([HEADER, '"a.png,1,0,0'], r"port\.csv line 2: unexpected end of data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_source_table_and_line(root: Path, fault: str) -> None:
    lines, said = FAULTS[fault]
    write(root, "port", *lines)
    with pytest.raises(DataError, match=said) as caught:
        list_files("mlrsnet", SOURCE, root)
    assert str(caught.value).startswith("geopile.sources.mlrsnet.label_tables: ")


def test_a_table_of_another_encoding_is_named(root: Path) -> None:
    write(root, "port", "image,Bäume,water,field", "a.png,1,0,0", encoding="latin-1")
    with pytest.raises(DataError, match=r"port\.csv: is not UTF-8 text"):
        list_files("m", SOURCE, root)


def test_tables_that_are_not_there_or_name_no_image_are_an_error(root: Path) -> None:
    other = SOURCE.model_copy(update={"label_tables": "Labels/*.csv"})
    with pytest.raises(DataError, match=r"holds no table that matches Labels/\*\.csv"):
        list_files("m", other, root)
    write(root, "port", HEADER, "a.jpg,1,0,0")
    write(root, "field", HEADER, "c.jpg,1,0,0")
    with pytest.raises(
        DataError, match=r"no row of it names an image: the first says c\.jpg, images are Images/field/c"
    ):
        list_files("m", SOURCE, root)


def test_a_row_that_two_images_could_own_is_an_error_and_a_path_tells_them_apart(root: Path) -> None:
    (root / "Images/port/c.png").write_bytes((root / "Images/field/c.png").read_bytes())
    with pytest.raises(DataError, match=r"2 images are called c\.png; give their paths below root"):
        list_files("m", SOURCE, root)
    write(root, "field", HEADER, "Images/field/c.png,1,0,1", "Images/port/c.png,0,1,0")
    list_files("m", SOURCE, root)
    assert labels(root, "Images/port/c.png") == ("water",)


def test_the_stamp_of_an_image_changes_with_its_own_row_only(root: Path) -> None:
    def stamps() -> list[tuple[str | int, ...]]:
        return [stamp(SOURCE, root, file) for file in list_files("m", SOURCE, root)]

    before = stamps()
    assert stamps() == before
    write(root, "port", "image,water,trees,field", "a.png,1,0,0", "b.png,0,1,0")
    assert [one == other for one, other in zip(stamps(), before, strict=True)] == [True, True, False]
