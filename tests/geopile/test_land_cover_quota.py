"""A collection balanced by land cover: what the manifest says, what a quota keeps, and when rasters are read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
from pydantic import ValidationError
from rasterio.transform import from_origin

from gfm.errors import DataError, GfmError
from gfm.geopile import assemble as assembling
from gfm.geopile import land_cover
from gfm.geopile.assemble import assemble
from gfm.geopile.expectations import Checker, read_suite
from gfm.geopile.expected_tables import _manifest
from gfm.imagery.raster import ImageError
from gfm.layout import COLLECTION, MANIFEST, manifest_without
from gfm.params import Params

CLASSES = {10: "tree cover", 50: "built-up", 80: "water", 95: "tree cover"}
TILE = 32  # pixels of 10 m
EAST, NORTH = 500000, 5500000
WorldCover = Callable[..., Path]


def picture(seed: int, px: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (px // 8, px // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC))


def save(path: Path, pixels: np.ndarray[Any, Any], metres: float, east: float = EAST) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    profile = {"driver": "GTiff", "width": bands.shape[2], "height": bands.shape[1], "count": len(bands)}
    place = {"crs": "EPSG:32633", "transform": from_origin(east, NORTH, metres, metres)}
    with rasterio.open(path, "w", dtype=bands.dtype, **profile, **place) as file:
        file.write(bands)
    return path


def worldcover(columns: list[int], path: Path = Path("raw/worldcover/a.tif")) -> Path:
    """A raster of 40 m whose columns of one tile's width show these values, over the scene's four rows."""
    return save(path, np.repeat(np.array([columns], np.uint8), 8, axis=1).repeat(32, axis=0), 40)


@pytest.fixture(autouse=True)
def imagery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene of 4 x 4 tiles on a map, and 3 photographs that are on none."""
    monkeypatch.chdir(tmp_path)
    save(Path("raw/scenes/s.tif"), picture(0, 4 * TILE), 10)
    for number in range(3):
        Path("raw/photos").mkdir(exist_ok=True)
        cv2.imwrite(f"raw/photos/{number}.png", picture(1 + number, 48))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which rasters are looked up, or opened for their header."""
    seen: list[str] = []
    main, header = land_cover.main_classes, land_cover.read_map

    def looked_up(images: Any, maps: Any, legend: Any) -> list[int]:
        seen.extend(one.path.name for one in maps)
        return main(images, maps, legend)

    def opened(path: Path) -> Any:
        seen.append(f"header of {path.name}")
        return header(path)

    monkeypatch.setattr(land_cover, "main_classes", looked_up)
    monkeypatch.setattr(land_cover, "read_map", opened)
    return seen


def parameters(quota: dict[str, Any] | None = None, **geopile: Any) -> Params:
    task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    sources = {
        "scenes": {"format": "scenes", "root": "scenes", "licence": "x"},
        "photos": {"format": "images", "root": "photos", "licence": "x"},
    }
    declared = {"land_cover": {"root": "worldcover", "classes": CLASSES}} | geopile
    if quota is not None:
        declared["quota"] = quota
    return Params.model_validate(
        {
            "paths": {"raw": "raw"},
            "geopile": {"tile_px": TILE, "workers": 1, "sources": sources, **declared},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": task}},
        }
    )


def built(quota: dict[str, Any] | None = None, **geopile: Any) -> pd.DataFrame:
    assemble(parameters(quota, **geopile))
    return pd.read_parquet(MANIFEST)


def counts(table: pd.DataFrame) -> dict[str, int]:
    return table["land_cover"].fillna("none").value_counts().to_dict()


def digest() -> dict[str, str]:
    files = (path for path in COLLECTION.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_manifest_says_what_georeferenced_images_show_and_a_quota_limits_each_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worldcover([10, 80, 95, 0])
    assert counts(built()) == {"tree cover": 8, "water": 4, "none": 7}
    assert "land cover: 8 tree cover, 4 water; 7 without one, which no quota limits" in capsys.readouterr().out
    few = built({"by": "land_cover", "most": 3})
    assert counts(few) == {"tree cover": 3, "water": 3, "none": 7}
    dropped = pd.read_csv(COLLECTION / "dropped.csv")
    assert dropped["reason"].tolist() == ["over quota"] * 6 and dropped["id"].str.startswith("scenes/").all()
    assert counts(built({"by": "land_cover", "most": "smallest"})) == {"tree cover": 4, "water": 4, "none": 7}


def test_without_a_declaration_the_manifest_has_no_such_column() -> None:
    worldcover([10, 80, 95, 0])
    names = pq.read_schema(MANIFEST).names if built(land_cover=None) is not None else []
    assert "land_cover" not in names
    built()
    with_it = pq.read_schema(MANIFEST).names
    assert [name for name in with_it if name != "land_cover"] == names


def test_a_collection_without_a_source_has_the_column_and_a_quota_of_its_own() -> None:
    worldcover([10, 80, 95, 0])
    built({"by": "land_cover", "most": 3}, leave_out=["photos"])
    assert counts(pd.read_parquet(manifest_without("photos"))) == {"tree cover": 3, "water": 3, "none": 4}


def test_another_quota_reads_no_raster_and_gives_what_a_first_assembly_does(read: list[str]) -> None:
    worldcover([10, 80, 95, 0])
    built()
    assert read == ["header of a.tif", "a.tif"]
    read.clear()
    built({"by": "land_cover", "most": 2})
    again = digest()
    assert read == []
    for path in sorted(Path(".gfm").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    built({"by": "land_cover", "most": 2})
    assert digest() == again and read


def test_a_raster_that_changed_is_noticed_and_so_is_one_more(read: list[str]) -> None:
    worldcover([10, 80, 95, 0])
    built()
    changed = worldcover([10, 80, 80, 0])
    os.utime(changed, ns=(1, 1))
    assert counts(built()) == {"tree cover": 4, "water": 8, "none": 7}
    worldcover([0, 0, 0, 50], Path("raw/worldcover/deeper/b.TIF"))
    assert counts(built()) == {"tree cover": 4, "water": 8, "built-up": 4, "none": 3}
    assert counts(built(land_cover={"root": "worldcover", "classes": CLASSES, "include": ["a.*"]}))["none"] == 7


def test_names_of_classes_may_change_without_reading_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    worldcover([10, 80, 95, 0])
    built()
    monkeypatch.setattr("gfm.geopile.findings.inspect", lambda *_: pytest.fail("an image was read"))
    named = built(land_cover={"root": "worldcover", "classes": CLASSES | {95: "mangroves"}})
    assert counts(named) == {"tree cover": 4, "mangroves": 4, "water": 4, "none": 7}


def test_the_bytes_are_the_same_with_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    worldcover([10, 80, 95, 0])
    built({"by": "land_cover", "most": 3})
    one = digest()
    for path in sorted(Path(".gfm").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    monkeypatch.setattr(assembling, "FEW_FILES", 0)
    built({"by": "land_cover", "most": 3}, workers=2)
    assert digest() == one


def test_validation_takes_the_column() -> None:
    worldcover([10, 80, 95, 0])
    table = built()
    params = parameters()
    subject = _manifest(params, table, {"images": len(table)})
    suite = read_suite(Path(__file__).parents[2] / "expectations/manifest.json")
    checks = Checker().check("manifest", suite, subject.table, subject.parameters)
    assert [check.description for check in checks if not check.success and check.severity == "critical"] == []


def test_rasters_that_cannot_be_used_stop_before_any_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfm.geopile.findings.inspect", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(DataError, match=r"geopile\.land_cover\.root: folder raw/worldcover does not exist; put"):
        built()
    Path("raw/worldcover").mkdir()
    with pytest.raises(
        DataError, match=r"geopile\.land_cover: folder raw/worldcover holds no file that matches \*\.tif"
    ):
        built()
    Path("raw/worldcover/._a.tif").write_text("what a Mac leaves beside a file")
    with pytest.raises(DataError, match="holds no file"):
        built()
    save(Path("raw/worldcover/a.tif"), np.zeros((8, 8, 3), np.uint8), 40)
    with pytest.raises(ImageError, match=r"worldcover/a\.tif: has 3 bands of uint8"):
        built()


def test_a_value_without_a_name_stops_with_the_value_and_the_file() -> None:
    worldcover([10, 80, 77, 0])
    with pytest.raises(GfmError, match=r"raw/worldcover/a\.tif: holds 77, which geopile\.land_cover\.classes does not"):
        built()


@pytest.mark.parametrize(
    ("geopile", "message"),
    [
        ({"land_cover": None, "quota": {"by": "land_cover", "most": 3}}, "quota.by = land_cover needs land_cover"),
        ({"land_cover": {"root": "w", "classes": {0: "none", 1: "sea"}}}, "nodata = 0 is among classes"),
        ({"land_cover": {"root": "w", "classes": {}}}, "at least 1"),
        ({"land_cover": {"root": "../w", "classes": {1: "sea"}}}, "must name a folder below paths.raw"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(geopile: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parameters(**geopile)
