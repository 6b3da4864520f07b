"""GeoPile's five sources as their downloads unpack, in miniature, through configs/paper.yaml and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from gfm.layout import COLLECTION

PAPER = Path(__file__).parents[2] / "configs" / "paper.yaml"
LABELS = ["airplane", "bare soil", "habor", "trees"]
Command = Callable[..., tuple[int, str, str]]


def picture(seed: int, side: int = 256) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(1, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR))


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(seed))


def naip(path: Path) -> None:
    """540 m of 0.6 m pixels, red, green, blue and near infrared, in UTM of NAD83."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.dstack([picture(1, 900), picture(2, 900)[..., :1]])
    place = {"crs": "EPSG:26918", "transform": from_origin(300000, 4200000, 0.6, 0.6)}
    profile = {"driver": "GTiff", "width": 900, "height": 900, "count": 4, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(np.moveaxis(pixels, -1, 0))


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The five sources, and configs/paper.yaml with the root changed and nothing else."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "geopile"
    naip(raw / "NAIP/m_3807708_se_18_060_20210611.tif")
    for seed, name in enumerate(("train/Airplane/a1", "val/Airplane/a2", "train/Oil tank/o1")):
        save(raw / f"RSD46-WHU/{name}.jpg", 10 + seed)
    for seed, name in enumerate(
        ("airplane/airplane_00001", "airplane/airplane_00002", "harbor&port/harbor_port_00001")
    ):
        save(raw / f"MLRSNet/Images/{name}.jpg", 20 + seed)
    for table, rows in {
        "airplane": [("1", [1, 1, 0, 0]), ("2", [1, 0, 0, 1])],
        "harbor&port": [("1", [0, 0, 1, 0])],
    }.items():
        path = raw / f"MLRSNet/labels/{table}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # with a byte-order mark, as Excel writes it
            writer = csv.writer(file)
            writer.writerow(["image", *LABELS])
            writer.writerows([f"{table.replace('&', '_')}_0000{number}.jpg", *values] for number, values in rows)
    save(raw / "NWPU-RESISC45/airport/airport_001.jpg", 30)
    save(raw / "NWPU-RESISC45/beach/beach_001.jpg", 31)
    save(raw / "PatternNet/images/airplane/airplane001.jpg", 40)
    save(raw / "PatternNet/patternnet_description.pdf.jpg", 41)  # not in a class folder: no image of it
    whole = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    whole["paths"]["raw"] = str(raw)
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    return tmp_path


def test_every_source_of_the_paper_is_assembled_from_its_published_layout(paper: Path, gfm: Command) -> None:
    code, out, error = gfm("assemble", "--params", paper / "paper.yaml")
    assert code == 0, error
    summary = json.loads((COLLECTION / "summary.json").read_text())["sources"]
    assert {name: (counts["kept"], counts["quarantined"]) for name, counts in summary.items()} == {
        "naip": (4, 0),
        "rsd46-whu": (3, 0),
        "mlrsnet": (3, 0),
        "resisc45": (2, 0),
        "patternnet": (1, 0),
    }, out
    table = pd.read_parquet(COLLECTION / "manifest.parquet").set_index("id")
    assert table.label["rsd46-whu/train/Oil tank/o1.jpg"] == "Oil tank"
    assert table.label["rsd46-whu/val/Airplane/a2.jpg"] == "Airplane"
    assert table.label["resisc45/airport/airport_001.jpg"] == "airport"
    assert table.label["patternnet/airplane/airplane001.jpg"] == "airplane"
    mlrsnet = table[table.source == "mlrsnet"]
    assert mlrsnet.label.tolist() == ["airplane", "airplane", "harbor&port"]
    assert [list(labels) for labels in mlrsnet["labels"]] == [
        ["airplane", "bare soil"],
        ["airplane", "trees"],
        ["habor"],
    ]
    assert table[table.source != "mlrsnet"]["labels"].isna().all()


def test_a_scene_of_0_6_m_becomes_tiles_of_1_m_that_say_where_and_when_they_were_taken(
    paper: Path, gfm: Command
) -> None:
    assert gfm("assemble", "--params", paper / "paper.yaml")[0] == 0
    table = pd.read_parquet(COLLECTION / "manifest.parquet")
    tiles = table[table.source == "naip"].set_index("id")
    tile = tiles.loc["naip/m_3807708_se_18_060_20210611.tif#256,0"]
    assert (tile.crs, tile.gsd_m, tile.date, tile.width) == ("EPSG:26918", 1.0, "2021-06-11", 256)
    assert list(tile["transform"]) == [1.0, 0.0, 300256.0, 0.0, -1.0, 4200000.0]
    assert (tile.west, tile.north) == pytest.approx((-77.27, 37.93), abs=0.01)


def test_check_reads_the_first_file_of_every_source(paper: Path) -> None:
    from gfm.geopile.first_files import check_first_files
    from gfm.params import load

    assert check_first_files(load(paper / "paper.yaml"), paper / "geopile") == []
