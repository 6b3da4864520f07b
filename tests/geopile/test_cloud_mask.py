"""Cloud masks beside scenes: what share of a tile they cover, and which masks cannot be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from pydantic import ValidationError
from rasterio.transform import from_origin

from gfm.geopile.assemble import assemble
from gfm.geopile.sources import list_files, read_tiles
from gfm.imagery.raster import ImageError
from gfm.layout import COLLECTION, MANIFEST
from gfm.params import BandFilesSource, Params, ScenesSource

SCL = {"cloud": [3, 8, 9, 10], "clear": [0, 1, 2, 4, 5, 6, 7, 11]}
BANDS = {"R": None, "G": None, "B": None}


def save(path: Path, pixels: np.ndarray[Any, Any], metres: float = 10, east: float = 500000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.atleast_3d(pixels)
    profile = {"driver": "GTiff", "width": bands.shape[1], "height": bands.shape[0], "count": bands.shape[2]}
    place = {"crs": "EPSG:32633", "transform": from_origin(east, 5500000, metres, metres)}
    with rasterio.open(path, "w", dtype=pixels.dtype, **profile, **place) as file:
        file.write(np.moveaxis(bands, -1, 0))


def scene(seed: int = 0, bands: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (64, 64, bands), dtype=np.uint8)


def scenes(**cloud: Any) -> ScenesSource:
    return ScenesSource(format="scenes", root=".", licence="x", imagery={"bands": BANDS}, cloud=cloud)


def shares(source: ScenesSource | BandFilesSource, root: Path, file: str) -> list[float]:
    return [float(tile.cloud.mean()) for tile in read_tiles(source, root, file, 32) if tile.cloud is not None]


def test_a_mask_beside_the_scene_says_which_tiles_are_cloudy_and_is_no_scene_itself(tmp_path: Path) -> None:
    save(tmp_path / "a/x.tif", scene())
    mask = np.full((64, 64), 4, np.uint8)
    mask[:16, :32], mask[32:, 32:] = 9, 3
    save(tmp_path / "a/x_SCL.tif", mask)
    source = scenes(file="{stem}_SCL.tif", **SCL)
    assert list_files("s", source, tmp_path) == ["a/x.tif"]
    assert shares(source, tmp_path, "a/x.tif") == [0.5, 0, 0, 1]


def test_a_coarser_mask_counts_for_all_the_pixels_it_covers(tmp_path: Path) -> None:
    save(tmp_path / "x.tif", scene())
    mask = np.zeros((16, 16), np.uint8)
    mask[0, 0], mask[15, 15] = 1, 1
    save(tmp_path / "x_cloud.tif", mask, metres=40)
    found = shares(scenes(file="{stem}_cloud.tif", cloud=[1]), tmp_path, "x.tif")
    assert found == [16 / 1024, 0, 0, 16 / 1024]
    odd = list(read_tiles(scenes(file="{stem}_cloud.tif", cloud=[1]), tmp_path, "x.tif", 30))  # across mask pixels
    assert odd[3].cloud is not None and odd[3].cloud.shape == (30, 30)
    assert not odd[3].cloud.any()


def test_bits_and_bands_of_the_scene_are_masks_too(tmp_path: Path) -> None:
    pixels = scene(bands=4)
    pixels[..., 3] = 0
    pixels[:32, :32, 3], pixels[32:, :32, 3] = 0b100, 0b1011
    save(tmp_path / "x.tif", pixels)
    source = ScenesSource(
        format="scenes",
        root=".",
        licence="x",
        imagery={"bands": {**BANDS, "QA": None}},
        cloud={"band": "QA", "bits": [2]},
    )
    assert shares(source, tmp_path, "x.tif") == [1, 0, 0, 0]


def test_band_files_take_the_mask_from_their_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("B04", "B03", "B02")):
        save(tmp_path / f"T33/T33_{name}.tif", scene(number, 1))
    mask = np.full((32, 32), 5, np.uint8)
    mask[:16, 16:] = 8
    save(tmp_path / "T33/T33_20m_SCL.tif", mask, metres=20)
    source = BandFilesSource(
        format="band-files",
        root=".",
        licence="x",
        imagery={"bands": {"B04": None, "B03": None, "B02": None}},
        cloud={"file": "*_SCL.tif", **SCL},
    )
    assert shares(source, tmp_path, "T33") == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (None, r"x\.tif: has no cloud mask x_m\.tif beside it"),
        (np.zeros((63, 64), np.uint8), r"x_m\.tif: is 64x63 px, its scene is 64x64"),
        (np.full((64, 64), 12, np.uint8), r"x_m\.tif: its cloud mask holds 12, which is declared neither"),
        (np.zeros((64, 64), np.float32), r"x_m\.tif: is no cloud mask: 1 bands of float32"),
        (np.zeros((64, 64, 3), np.uint8), r"x_m\.tif: is no cloud mask: 3 bands of uint8"),
    ],
)
def test_a_mask_that_cannot_be_believed_is_refused(tmp_path: Path, mask: Any, reason: str) -> None:
    save(tmp_path / "x.tif", scene())
    if mask is not None:
        save(tmp_path / "x_m.tif", mask)
    with pytest.raises(ImageError, match=reason):
        list(read_tiles(scenes(file="{stem}_m.tif", **SCL), tmp_path, "x.tif", 32))


def test_a_mask_of_other_ground_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.tif", scene())
    save(tmp_path / "x_m.tif", np.zeros((64, 64), np.uint8), east=500640)
    with pytest.raises(ImageError, match=r"x_m\.tif: is a cloud mask of other ground than its scene"):
        list(read_tiles(scenes(file="{stem}_m.tif", **SCL), tmp_path, "x.tif", 32))


def test_two_masks_for_one_scene_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.tif", scene())
    for name in ("x_1_m.tif", "x_2_m.tif"):
        save(tmp_path / name, np.zeros((64, 64), np.uint8))
    with pytest.raises(ImageError, match=r"has 2 cloud masks x_\*_m\.tif beside it"):
        list(read_tiles(scenes(file="{stem}_*_m.tif", **SCL), tmp_path, "x.tif", 32))


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        ({"cloud": [1]}, "give file, or band"),
        ({"file": "{stem}_m.tif", "band": "R", "cloud": [1]}, "give file, or band"),
        ({"file": "{stem}_m.tif"}, "give cloud, the values, or bits"),
        ({"file": "../m.tif", "cloud": [1]}, "must name a file in the scene's folder"),
        ({"file": "{stem}_m.tif", "cloud": [1], "clear": [0, 1]}, "1 is among cloud and clear"),
        ({"band": "QA", "cloud": [1]}, r"cloud\.band = QA is not one of imagery\.bands"),
    ],
)
def test_a_declaration_that_says_too_little_or_too_much_is_refused(cloud: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        scenes(**cloud)


def test_cloudy_tiles_are_dropped_where_a_limit_asks_for_it_and_a_bad_mask_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = np.full((64, 64), 4, np.uint8)
    mask[:16, :32], mask[32:, 32:] = 9, 3
    for name, bad in (("good", 4), ("bad", 77)):
        save(Path(f"raw/s2/{name}.tif"), scene(len(name)))
        save(Path(f"raw/s2/{name}_SCL.tif"), np.where(mask == 4, bad, mask).astype(np.uint8))
    save(Path("raw/drone/plain.tif"), scene(9))

    def build(**quality: float) -> pd.DataFrame:
        s2 = {"format": "scenes", "root": "s2", "licence": "x", "imagery": {"bands": BANDS}}
        task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
        assemble(
            Params.model_validate(
                {
                    "paths": {"raw": "raw"},
                    "geopile": {
                        "tile_px": 32,
                        "workers": 1,
                        "quality": quality,
                        "sources": {
                            "s2": {**s2, "cloud": {"file": "{stem}_SCL.tif", **SCL}},
                            "drone": s2 | {"root": "drone"},
                        },
                    },
                    "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
                    "pretrain": {"gfm": {"recipe": "gfm"}},
                    "tasks": {"t": {"kind": "classification", "data": task}},
                }
            )
        )
        return pd.read_parquet(MANIFEST).set_index("id")

    table = build()
    assert table.loc[table["source"] == "s2", "cloud_share"].tolist() == [0.5, 0, 0, 1]
    assert table.loc[table["source"] == "drone", "cloud_share"].isna().all()
    [refused] = pd.read_csv(COLLECTION / "quarantine.csv").to_dict("records")
    assert refused["file"] == "s2/bad.tif"
    assert refused["reason"].startswith("bad_SCL.tif: its cloud mask holds 77")
    table = build(max_cloud_share=0.2)
    assert (table["source"] == "s2").sum() == 2 and (table["source"] == "drone").sum() == 4
    dropped = pd.read_csv(COLLECTION / "dropped.csv")
    assert dropped["reason"].tolist() == ["cloudy"] * 2
