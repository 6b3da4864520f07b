"""`gfm check` reads one file a source, so that a wrong declaration does not cost an assembly."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfm.errors import DataError
from gfm.geopile.first_files import check_first_files
from gfm.params import Params


def parameters(source: dict[str, Any] | None = None, **imagery: Any) -> Params:
    declared = source or {"format": "images", **({"imagery": imagery} if imagery else {})}
    source = {"root": "photos", "licence": "CC0", **declared}
    split = {"val_share": 0.2, "test_share": 0.2}
    return Params.model_validate(
        {
            "geopile": {"sources": {"photos": source}},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {
                "t": {"kind": "classification", "data": {"format": "class-folders", "root": "t", "split": split}}
            },
        }
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.png"), np.full((40, 40, 3), 90, np.uint8))
    return tmp_path


def test_files_as_declared_give_no_remark(raw: Path) -> None:
    assert check_first_files(parameters(), raw) == []


@pytest.mark.parametrize(
    ("imagery", "told"),
    [
        ({"dtype": "uint16", "bands": {"R": 0.6, "G": 0.5, "B": 0.4}}, "is uint8, declared uint16"),
        ({"dtype": "uint8", "bands": {"R": 0.6, "G": 0.5, "B": 0.4, "NIR": 0.8}}, "3 bands"),
    ],
)
def test_another_dtype_or_band_count_is_remarked_on_by_source_and_file(
    raw: Path, imagery: dict[str, Any], told: str
) -> None:
    [remark] = check_first_files(parameters(**imagery), raw)
    assert remark.startswith("geopile.sources.photos: its first file cannot be used as it is declared: a.png: ")
    assert told in remark


def test_a_source_without_files_is_an_error(raw: Path) -> None:
    (raw / "photos/a.png").unlink()
    with pytest.raises(DataError, match=r"geopile\.sources\.photos: folder .* holds no file that matches"):
        check_first_files(parameters(), raw)


@pytest.mark.parametrize("name", ["x.png", "deep/folder/x.png"])
def test_the_first_image_of_an_archive_is_read_too(raw: Path, name: str) -> None:
    with zipfile.ZipFile(raw / "photos/a.zip", "w") as archive:
        archive.writestr(name, (raw / "photos/a.png").read_bytes())
    archived = {"format": "archive", "imagery": {"dtype": "uint16"}}
    [remark] = check_first_files(parameters(source=archived), raw)
    assert remark.endswith(f"as it is declared: a.zip!{name}: is uint8, declared uint16")
    assert check_first_files(parameters(source={"format": "archive"}), raw) == []
    (raw / "photos/a.zip").write_bytes(b"PK\x03\x04")
    [remark] = check_first_files(parameters(source={"format": "archive"}), raw)
    assert "a.zip: truncated or corrupt" in remark
