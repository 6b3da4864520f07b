"""Whatever lies in a source's folder: each bad file is one row of the quarantine with its reason, nothing else is lost.

What archives do is in test_archive_sources.py, what stores do in test_store_sources.py. A flipped bit shows only where
a format has checksums or is compressed: PNG, zip, gzip, zstd, deflated TIFF; in plain TIFF and JPEG it is a pixel.
"""

from __future__ import annotations

import csv
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile.assemble import assemble
from gfm.imagery.raster import MAX_FILE_BYTES
from gfm.layout import COLLECTION
from gfm.params import Params

Make = Callable[[Path], object]


def parameters(**sources: dict[str, Any]) -> Params:
    declared = {name: {"root": name, "licence": "CC0", **source} for name, source in sources.items()}
    data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    return Params.model_validate(
        {
            "paths": {"raw": "raw"},
            "geopile": {"tile_px": 64, "workers": 1, "sources": declared},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": data}},
        }
    )


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/s").mkdir(parents=True)
    return tmp_path


def picture(seed: int, side: int = 64, bands: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, bands), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)).reshape(side, side, bands)


def png(seed: int) -> bytes:
    return bytes(cv2.imencode(".png", picture(seed))[1])


def tiff(pixels: np.ndarray[Any, Any], **more: Any) -> Make:
    """Writes a GeoTIFF."""

    def write(path: Path) -> None:
        height, width, count = pixels.shape
        place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, 10, 10)}
        profile = {"width": width, "height": height, "count": count, "dtype": pixels.dtype, **place, **more}
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            file.write(np.moveaxis(pixels, -1, 0))

    return write


def raw_tiff(width: int, height: int, bands: int, tiled: bool = False) -> Make:
    """Writes a TIFF of 8 bits a band that declares these numbers and holds one strip, or tile, of 64 bytes."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, bands)]
    tags += [(322, 4, width), (323, 4, height), (324, 4, 200), (325, 4, 64)] if tiled else []
    tags += [] if tiled else [(273, 4, 200), (278, 4, height), (279, 4, 64)]
    tags.sort()
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return lambda path: path.write_bytes(data.ljust(200, b"\0") + bytes(64))


def cut(make: Make, size: int) -> Make:
    def write(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[:size])

    return write


def flipped(make: Make, share: float) -> Make:
    def write(path: Path) -> None:
        make(path)
        data = bytearray(path.read_bytes())
        data[int(len(data) * share)] ^= 0x10
        path.write_bytes(data)

    return write


def holes(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = picture(1, 96).astype(np.float32) / 255
    pixels[5, 5, 1] = value
    return pixels


def bomb(path: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = bytearray(png(1))
    data[12:33] = head + struct.pack(">I", zlib.crc32(head))
    path.write_bytes(data)


def huge(path: Path) -> None:
    """A picture of a terabyte, by its size; on disk it is a hole."""
    path.write_bytes(png(1))
    os.truncate(path, 1 << 40)


SCENE = tiff(picture(1, 96))
PACKED = tiff(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8), compress="deflate", blockysize=16)
SCENES: dict[str, tuple[Make, str]] = {
    "cut.tif": (cut(SCENE, 5000), "truncated or corrupt"),
    "cut in its header.tif": (cut(SCENE, 60), "truncated or corrupt"),
    "flipped.tif": (flipped(PACKED, 0.5), "truncated or corrupt"),
    "empty.tif": (Path.touch, "empty file"),
    "text.tif": (lambda path: path.write_text("<html>"), "not a TIFF image"),
    "picture.tif": (lambda path: path.write_bytes(png(1)), "not a TIFF image"),
    "no bands.tif": (raw_tiff(96, 96, 0), "truncated or corrupt"),
    "one pixel.tif": (tiff(picture(1, 1)), "smaller than one tile (1x1 px, geopile.tile_px is 64)"),
    "4 bands.tif": (tiff(picture(1, 96, 4)), "has 4 bands, 3 declared (R, G, B)"),
    "1 band.tif": (tiff(picture(1, 96, 1)), "has 1 band, 3 declared (R, G, B)"),
    "16 bits.tif": (tiff(picture(1, 96).astype(np.uint16)), "is uint16, declared uint8"),
    "bomb of one block.tif": (raw_tiff(16384, 16384, 3, tiled=True), "is stored in blocks of 16384x16384 px"),
}


@pytest.mark.parametrize("resample_m", [None, 10.0])
def test_scenes(work: Path, resample_m: float | None) -> None:
    good = ["good.tif", "Überflug 東京 🛰.tif", f"{'long ' * 50}.tif"]
    for seed, name in enumerate(good):
        tiff(picture(20 + seed, 96))(work / "raw/s" / name)
    for name, (make, _) in SCENES.items():
        make(work / "raw/s" / name)
    assemble(parameters(s={"format": "scenes", "resample_m": resample_m}))
    check({name: reason for name, (_, reason) in SCENES.items()})
    assert {name.partition("#")[0] for name in manifest().index} == {f"s/{name}" for name in good}


def test_scenes_without_a_coordinate_system_are_kept_in_place_and_refused_where_they_must_move(work: Path) -> None:
    tiff(picture(1, 96), crs=None, transform=rasterio.Affine.identity())(work / "raw/s/a.tif")
    assemble(parameters(s={"format": "scenes"}))
    (tile,) = manifest().itertuples()
    assert tile.place == "s/a.tif"
    assert tile.transform is None
    assert pd.isna(tile.crs)
    tiff(picture(2, 96))(work / "raw/s/b.tif")
    assemble(parameters(s={"format": "scenes", "resample_m": 10.0}))
    check({"a.tif": "has no coordinate system to reproject from"})
    assert len(manifest()) == 1


SWAPPED = tiff(picture(1, 96), crs="EPSG:4326", transform=from_origin(37, 122, 1e-4, 1e-4))
NO_SIZE = tiff(picture(1, 96), transform=rasterio.Affine(0, 0, 500000, 0, 0, 5500000))
MISPLACED: dict[str, tuple[Make, str]] = {
    "swapped.tif": (SWAPPED, "its coordinates give a latitude of 122 degrees"),
    "no size.tif": (NO_SIZE, "its pixels have no size"),
}
MOVED: dict[str, tuple[Make, str]] = {
    "metres as millions.tif": (
        tiff(picture(1, 96), transform=from_origin(5e5, 5e6, 1e6, 1e6)),
        "has pixels of 1e+06 m",
    ),
    "tiny.tif": (
        tiff(picture(1, 96), transform=from_origin(5e5 + 1, 5e6 - 1, 1e-6, 1e-6)),
        "is smaller than one pixel",
    ),
    "far.tif": (tiff(picture(1, 96), crs="EPSG:3857", transform=from_origin(0, 3e8, 1, 1)), "has pixels of 0 m"),
}


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ({"format": "scenes"}, MISPLACED),
        ({"format": "scenes", "resample_m": 10.0}, MISPLACED | MOVED),
        ({"format": "images"}, MISPLACED),
    ],
    ids=["scenes", "moved", "images"],
)
def test_a_scene_at_no_place_on_earth_is_one_row(
    work: Path, source: dict[str, Any], bad: dict[str, tuple[Make, str]]
) -> None:
    tiff(picture(20, 96))(work / "raw/s/good.tif")
    for name, (make, _) in bad.items():
        make(work / "raw/s" / name)
    assemble(parameters(s=source))
    check({name: reason for name, (_, reason) in bad.items()})
    assert len(manifest()) == 1


def test_band_files_at_no_place_on_earth_are_one_row(work: Path) -> None:
    def band(name: str, seed: int, **place: Any) -> None:
        (work / "raw/s" / name).parent.mkdir(exist_ok=True)
        tiff(picture(seed, 96, 1), **place)(work / "raw/s" / name)

    swapped = {"crs": "EPSG:4326", "transform": from_origin(37, 122, 1e-4, 1e-4)}
    no_size = {"transform": rasterio.Affine(0, 0, 500000, 0, 0, 5500000)}
    for number, letter in enumerate("RGB"):
        band(f"good/{letter}.tif", number)
        band(f"swapped/{letter}.tif", number, **swapped)
        band(f"no size/{letter}.tif", number, **(no_size if letter == "B" else {}))
    assemble(parameters(s={"format": "band-files"}))
    found = quarantine()
    assert len(found) == 2
    assert any("its coordinates give a latitude of 122 degrees" in reason for reason in found.values())
    assert any("its pixels have no size" in reason for reason in found.values())
    assert len(manifest()) == 1


def test_pixels_that_are_no_numbers(work: Path) -> None:
    for name, value in {"nan.tif": np.nan, "inf.tif": np.inf, "minus.tif": -np.inf, "good.tif": 0.5}.items():
        tiff(holes(value))(work / "raw/s" / name)
    assemble(parameters(s={"format": "scenes", "imagery": {"dtype": "float32", "scale": 1.0}}))
    check(dict.fromkeys(("nan.tif", "inf.tif", "minus.tif"), "has 1 pixels that are NaN or infinite"))
    assert [name.partition("#")[0] for name in manifest().index] == ["s/good.tif"]


IMAGES: dict[str, tuple[Make, str]] = {
    "flipped.png": (flipped(lambda path: path.write_bytes(png(1)), 0.5), "truncated or corrupt"),
    "bomb.png": (bomb, "has 100000x100000 px, more than"),
    "bomb.tif": (raw_tiff(100_000, 100_000, 3), "has 100000x100000 px, more than"),
    "huge.png": (huge, f"is {1 << 40:,} bytes, more than {MAX_FILE_BYTES:,}"),
    "no bands.tif": (raw_tiff(64, 64, 0), "truncated or corrupt"),
}


def test_images(work: Path) -> None:
    for name, (make, _) in IMAGES.items():
        make(work / "raw/s" / name)
    (work / "raw/s/png.jpg").write_bytes(png(5))
    (work / "raw/s/jpg.tif").write_bytes(bytes(cv2.imencode(".jpg", picture(6))[1]))
    cv2.imwrite(str(work / "raw/s/one pixel.png"), picture(7, 1))
    assemble(parameters(s={"format": "images"}))
    check({name: reason for name, (_, reason) in IMAGES.items()})
    assert manifest().index.tolist() == ["s/jpg.tif", "s/png.jpg"]
    dropped = pd.read_csv(COLLECTION / "dropped.csv")
    assert dropped[["id", "reason"]].to_numpy().tolist() == [["s/one pixel.png", "too small"]]


@pytest.mark.parametrize("source", ["images", "scenes"])
def test_a_file_without_permission(work: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    for name in ("locked.tif", "open.tif"):
        tiff(picture(len(name), 64))(work / "raw/s" / name)
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name == "locked.tif":  # root may read everything
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    assemble(parameters(s={"format": source}))
    check({"locked.tif": "not readable: permission denied"})
    assert len(manifest()) == 1


def test_a_zip_s_member_of_a_gibibyte_is_refused_by_its_declared_size(work: Path) -> None:
    with zipfile.ZipFile(work / "raw/s/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", png(1) + bytes(100_000))
        archive.writestr("good.png", png(2))
    data = bytearray((work / "raw/s/a.zip").read_bytes())
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(magic) + at, 1 << 30)
    (work / "raw/s/a.zip").write_bytes(data)
    assemble(parameters(s={"format": "archive"}))
    check({"a.zip!bomb.png": "is 1,073,741,824 bytes, more than 536,870,912"})
    assert manifest().index.tolist() == ["s/a.zip/good.png"]


@pytest.mark.parametrize("limit", [None, 3])
def test_an_archive_whose_name_is_no_text_is_one_row_however_many_images_it_holds(
    work: Path, limit: int | None
) -> None:
    for name in ("good.zip", os.fsdecode(b"\xff.zip")):
        with zipfile.ZipFile(work / "raw/s" / name, "w") as archive:
            for seed in range(3):
                archive.writestr(f"{seed}.png", png(seed + len(name)))
    assemble(parameters(s={"format": "archive", "limit": limit}))
    check({"\\udcff.zip": "its name is not valid UTF-8"})
    assert len(manifest()) == 3


@pytest.mark.parametrize("layout", ["class-folders", "images", "scenes"])
def test_a_folder_of_archives_under_another_format_says_which_it_is(work: Path, layout: str) -> None:
    (work / "raw/s/a.tar.gz").touch()
    (work / "raw/s/b.zip").touch()
    with pytest.raises(DataError, match=r"holds no file that matches .*; it holds 2 archives: declare format: archive"):
        assemble(parameters(s={"format": layout}))


def manifest() -> pd.DataFrame:
    return pd.read_parquet(COLLECTION / "manifest.parquet").set_index("id")


def quarantine() -> dict[str, str]:
    with (COLLECTION / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"].removeprefix("s/"): row["reason"] for row in csv.DictReader(file)}


def check(expected: dict[str, str]) -> None:
    """Just these files are quarantined, each for a reason that begins so."""
    found = quarantine()
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert found[name].startswith(reason), f"{name}: {found[name]}"
