"""From folders of imagery to the collection: what is kept, what is not and why, and the same bytes every time."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import simplejpeg
from PIL import Image
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile.assemble import assemble
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.layout import COLLECTION
from gfm.params import Params

FIELD = Path(__file__).parents[2] / ".." / "shared" / "imagery"
REST = {
    "teacher": {"kind": "supervised", "architecture": {}, "sources": ["labelled"]},
    "pretrain": {"gfm": {"recipe": "gfm"}},
}
TASK = {
    "kind": "classification",
    "data": {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}},
}


def parameters(sources: dict[str, dict[str, Any]], raw: str = "raw", **geopile: Any) -> Params:
    """Parameters of these sources; a labelled one that no test looks at satisfies the teacher."""
    labelled = next((name for name, source in sources.items() if source["format"] == "class-folders"), None)
    rest: dict[str, Any] = {**REST, "tasks": {"t": TASK}, "splits": {"block_km": 1.0}, "paths": {"raw": raw}}
    if labelled is None:
        rest["teacher"] = {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"}
    else:
        rest["teacher"] = {**REST["teacher"], "sources": [labelled]}
    declared = {name: {"licence": "CC0", "root": name} | source for name, source in sources.items()}
    return Params.model_validate({**rest, "geopile": {"tile_px": 64, "workers": 1, **geopile, "sources": declared}})


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def save(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_scene(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, 10, 10)}
    profile = (
        {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": pixels.dtype} | place | options
    )
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    yield tmp_path


def manifest() -> pd.DataFrame:
    return pd.read_parquet(COLLECTION / "manifest.parquet").set_index("id")


def rows(name: str) -> list[dict[str, str]]:
    with (COLLECTION / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def images() -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    reader = ShardReader(COLLECTION / "shards")
    return {
        row.Index: decode_image(reader.bytes(row.shard, row.offset, row.size), str(row.Index))
        for row in manifest().itertuples()
    }


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.png": (lambda path: path.touch(), "empty file"),
    "page.png": (lambda path: path.write_text("<html>not found"), "not a PNG, JPEG or TIFF image"),
    "cut.png": (
        lambda path: (save(path, picture(1)), path.write_bytes(path.read_bytes()[:-40])),
        "truncated or corrupt",
    ),
    "cut.jpg": (
        lambda path: (save(path, picture(2)), path.write_bytes(path.read_bytes()[:-40])),
        "truncated or corrupt",
    ),
    "cut.tif": (
        lambda path: (save(path, picture(3)), path.write_bytes(path.read_bytes()[:90])),
        "truncated or corrupt",
    ),
    "alpha.png": (
        lambda path: save(path, np.dstack([picture(4), picture(5)[..., :1]])),
        "has 4 bands, 3 declared (R, G, B)",
    ),
    "grey.jpg": (lambda path: save(path, picture(6)[..., 0]), "has 1 band, 3 declared (R, G, B)"),
    "deep.png": (lambda path: cv2.imwrite(str(path), picture(7).astype(np.uint16)), "is uint16, declared uint8"),
    "pipe.png": (os.mkfifo, "not a regular file"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), "no such file"),
}


def test_bad_files_are_quarantined_with_their_reason_and_the_rest_is_kept(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        save(work / f"raw/photos/good{number}.png", picture(20 + number))
    for name, (make, _) in BAD_FILES.items():
        make(work / "raw/photos" / name)
    (work / "raw/photos/readme.txt").write_text("not an image, nor said to be one")
    assemble(parameters({"photos": {"format": "images"}}))
    quarantine = {row["file"]: row for row in rows("quarantine.csv")}
    assert quarantine.keys() == {f"photos/{name}" for name in BAD_FILES}
    for name, (_, reason) in BAD_FILES.items():
        assert quarantine[f"photos/{name}"]["reason"].startswith(reason), name
        assert str(work) not in quarantine[f"photos/{name}"]["reason"]
    assert list(manifest().index) == ["photos/good0.png", "photos/good1.png", "photos/good2.png"]
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["photos", "13", "10", "3", "0", "3"] in table


def test_a_source_without_any_usable_file_is_said_with_the_first_reason(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(work / "raw/photos/good.png", picture(1))
    save(work / "raw/deep/a.png", np.zeros((64, 64), np.uint16))
    assemble(parameters({"photos": {"format": "images"}, "deep": {"format": "images"}}))
    out = capsys.readouterr().out
    assert "deep: NOTHING of it could be used; the first: deep/a.png: " in out
    assert "photos: NOTHING" not in out


def test_a_file_whose_name_is_not_text_is_quarantined_not_fatal(work: Path) -> None:
    save(work / "raw/photos/good.png", picture(0))
    Path(os.fsdecode(os.fsencode(work / "raw/photos") + b"/\xff.png")).write_bytes(b"")
    assemble(parameters({"photos": {"format": "images"}}))
    assert rows("quarantine.csv") == [
        {"source": "photos", "file": "photos/\\udcff.png", "reason": "its name is not valid UTF-8"}
    ]
    assert len(manifest()) == 1


@pytest.mark.parametrize(
    ("image_format", "present", "said"),
    [
        ("scenes", None, "geopile.sources.mine.root: folder raw/mine does not exist; put the imagery there"),
        ("images", "mine/notes.txt", "geopile.sources.mine: folder raw/mine holds no file that matches **/*"),
        ("class-folders", "mine/deeper/class/a.png", "holds no file that matches */*"),
        ("band-files", "mine/city/x_B05.tif", "holds no file that matches `…_B04.tif`"),
    ],
)
def test_a_source_without_files_is_named_with_its_folder_and_key(
    work: Path, image_format: str, present: str | None, said: str
) -> None:
    if present:
        save(work / "raw" / present, picture(0)) if not present.endswith("txt") else None
        (work / "raw/mine").mkdir(exist_ok=True)
    imagery = {"bands": {"B04": None, "G": None, "B": None}}
    more = {"imagery": imagery, "composite": {"R": "B04"}} if image_format == "band-files" else {}
    with pytest.raises(DataError) as caught:
        assemble(parameters({"mine": {"format": image_format, **more}}))
    assert said in str(caught.value)
    assert not COLLECTION.exists()


def test_the_bytes_do_not_depend_on_the_number_of_processes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfm.geopile.assemble.FEW_FILES", 2)  # so that processes are started
    for number in range(40):
        save(work / f"raw/photos/{number % 3}/{number:03d}.png", picture(number))
    (work / "raw/photos/0/bad.png").touch()
    save_scene(work / "raw/scenes/a_20200101.tif", picture(99, 150, 200))
    sources = {"photos": {"format": "class-folders"}, "scenes": {"format": "scenes"}}
    assemble(parameters(sources, shard_mb=0.1))
    alone = digest(COLLECTION)
    shutil.rmtree(".gfm")  # what it remembers
    assemble(parameters(sources, shard_mb=0.1, workers=3))
    assert digest(COLLECTION) == alone
    assert len([name for name in alone if name.endswith(".tar")]) > 2


def test_a_reencoded_copy_is_dropped_and_the_labelled_one_is_kept(work: Path) -> None:
    save(work / "raw/loose/copy.jpg", picture(1, 128, 128), quality=60)
    save(work / "raw/loose/other.jpg", picture(2, 128, 128), quality=60)
    save(work / "raw/labelled/airport/original.png", picture(1, 128, 128))
    save(work / "raw/labelled/airport/again.png", picture(1, 128, 128))
    assemble(parameters({"loose": {"format": "images"}, "labelled": {"format": "class-folders"}}))
    assert list(manifest().index) == ["labelled/airport/again.png", "loose/other.jpg"]
    assert manifest().label.tolist()[0] == "airport"
    kept = "labelled/airport/again.png"
    assert [tuple(row.values()) for row in rows("dropped.csv")] == [
        ("labelled", "labelled/airport/original.png", "exact duplicate", kept),
        ("loose", "loose/copy.jpg", "near duplicate", kept),
    ]


def test_poor_images_are_dropped_and_counted_by_reason(work: Path) -> None:
    half = picture(1)
    half[:40] = 0
    save(work / "raw/photos/half.png", half)
    save(work / "raw/photos/tiny.png", picture(2, 20, 64))
    save(work / "raw/photos/plain.png", np.full((64, 64, 3), 77, np.uint8))
    save(work / "raw/photos/good.png", picture(3))
    assemble(parameters({"photos": {"format": "images", "imagery": {"nodata": 0}}}))
    summary = json.loads((COLLECTION / "summary.json").read_text())
    assert summary["sources"]["photos"] == {
        "listed": 4,
        "met": 4,
        "quarantined": 0,
        "images": 4,
        "kept": 1,
        "dropped": {"low entropy": 1, "nodata": 1, "too small": 1},
    }
    assert list(manifest().index) == ["photos/good.png"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_of_a_scene_without_coordinates_are_one_place_and_a_geocentric_scene_is_quarantined(work: Path) -> None:
    plain = {"crs": None, "transform": rasterio.Affine.identity()}
    for number, name in enumerate(("a.tif", "b.tif")):
        save_scene(work / f"raw/scenes/{name}", picture(number, 128, 128), **plain)
    save_scene(work / "raw/scenes/centre.tif", picture(2), crs="EPSG:4978")
    bands = {"R": None, "G": None, "B": None}
    assemble(parameters({"scenes": {"format": "scenes", "imagery": {"bands": bands}}}))
    table = geopandas.read_parquet(COLLECTION / "manifest.parquet")
    assert len(table) == 8
    assert table.place.tolist() == ["scenes/a.tif"] * 4 + ["scenes/b.tif"] * 4
    with (COLLECTION / "quarantine.csv").open(newline="") as file:
        refused = [(row["file"], row["reason"]) for row in csv.DictReader(file)]
    assert refused == [("scenes/centre.tif", "its coordinate system gives no longitude and latitude")]


def test_image_files_are_kept_byte_for_byte_and_others_become_good_jpegs(work: Path) -> None:
    save(work / "raw/photos/a.png", picture(1))
    save(work / "raw/photos/b.jpg", picture(2), quality=70)
    save(work / "raw/photos/c.tif", picture(3))
    assemble(parameters({"photos": {"format": "images"}}))
    reader = ShardReader(COLLECTION / "shards")
    stored = [reader.bytes(row.shard, row.offset, row.size) for row in manifest().itertuples()]
    assert stored[:2] == [(work / f"raw/photos/{name}").read_bytes() for name in ("a.png", "b.jpg")]
    assert simplejpeg.decode_jpeg_header(stored[2])[2:] == ("YCbCr", "444")
    assert np.abs(images()["photos/c.tif"].astype(int) - picture(3)).mean() < 2


def test_images_above_the_ceiling_are_stored_resized_once_and_others_as_they_are(work: Path) -> None:
    save(work / "raw/photos/large.png", picture(1, 128, 192))
    save(work / "raw/photos/small.png", picture(2, 64, 64))
    assemble(parameters({"photos": {"format": "images", "gsd_m": 0.5}}, store_px=64))
    stored, table = images(), manifest()
    assert {name: image.shape for name, image in stored.items()} == {
        "photos/large.png": (64, 96, 3),
        "photos/small.png": (64, 64, 3),
    }
    assert np.array_equal(stored["photos/small.png"], picture(2, 64, 64))
    halved = picture(1, 128, 192).reshape(64, 2, 96, 2, 3).mean(axis=(1, 3))
    assert np.abs(stored["photos/large.png"] - halved).mean() < 2
    assert table[["height", "width", "gsd_m"]].to_numpy().tolist() == [[64, 96, 1.0], [64, 64, 0.5]]


def test_a_source_in_another_band_order_arrives_in_the_collections_order(work: Path) -> None:
    save(work / "raw/swapped/a.png", picture(1))
    assemble(parameters({"swapped": {"format": "images", "imagery": {"bands": {"B": None, "G": None, "R": None}}}}))
    assert np.abs(images()["swapped/a.png"].astype(int) - picture(1)[..., ::-1]).mean() < 2


def test_more_bands_than_a_jpeg_holds_are_stored_without_loss(work: Path) -> None:
    pixels = np.dstack([picture(1), picture(2)])[..., :5]
    save_scene(work / "raw/scenes/a.tif", pixels)
    bands = dict.fromkeys(["R", "G", "B", "NIR", "SWIR"])
    norm = {"mean": [0.5] * 5, "std": [0.5] * 5}
    loaded = parameters({"scenes": {"format": "scenes", "imagery": {"bands": bands}}}).model_dump()
    loaded["geopile"]["bands"] = list(bands)
    loaded["teacher"]["normalisation"] = loaded["student"]["normalisation"] = norm
    loaded["tasks"]["t"]["data"]["imagery"]["bands"] = bands
    assemble(Params.model_validate(loaded))
    assert np.array_equal(images()["scenes/a.tif#0,0"], pixels)


def test_a_limit_keeps_so_many_images_and_always_the_same(work: Path) -> None:
    for number in range(12):
        save(work / f"raw/photos/{number}.png", picture(number))
    save_scene(work / "raw/scenes/a.tif", picture(50, 200, 200))
    (work / "raw/scenes/b.tif").touch()
    sources = {"photos": {"format": "images", "limit": 4}, "scenes": {"format": "scenes", "limit": 2}}
    assemble(parameters(sources))
    first = list(manifest().index)
    assert [sum(name.startswith(source) for name in first) for source in sources] == [4, 2]
    assert [row["file"] for row in rows("quarantine.csv")] == ["scenes/b.tif"]
    save(work / "raw/photos/new.png", picture(70))
    assemble(parameters(sources))
    assert len(set(manifest().index) & set(first)) >= 5  # a new file moves at most one out


def test_a_map_program_can_open_the_manifest(work: Path) -> None:
    save_scene(work / "raw/scenes/a_20200830.tif", picture(1, 64, 128))
    save(work / "raw/photos/a.png", picture(3))
    assemble(parameters({"scenes": {"format": "scenes"}, "photos": {"format": "images"}}))
    table = geopandas.read_parquet(COLLECTION / "manifest.parquet")
    assert table.crs == "OGC:CRS84"
    assert table.geometry.isna().tolist() == [True, False, False]
    assert table.geometry[1].is_valid
    assert table.total_bounds == pytest.approx((15, 49.6468, 15.0178, 49.6525), abs=1e-4)
    scene = table.set_index("id").loc["scenes/a_20200830.tif#64,0"]
    assert (scene.date, scene.gsd_m, scene.crs) == ("2020-08-30", 10.0, "EPSG:32633")
    assert scene.place.startswith("ground-1km-")
    assert table.place[0] == table.id[0] == "photos/a.png"


def test_any_tar_reader_finds_the_images_where_the_manifest_says(work: Path) -> None:
    for number in range(3):
        save(work / f"raw/photos/{'long ' * 30}{number}.png", picture(number))
    assemble(parameters({"photos": {"format": "images"}}))
    with tarfile.open(COLLECTION / "shards/photos-00000.tar") as tar:
        members = tar.getmembers()
    assert [member.offset_data for member in members] == manifest().offset.tolist()
    assert [member.size for member in members] == manifest()["size"].tolist()
    assert all(member.name.count(".") == 1 and member.mtime == 0 for member in members)


def test_a_failure_leaves_the_previous_collection_whole(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(work / "raw/photos/a.png", picture(1))
    params = parameters({"photos": {"format": "images"}})
    assemble(params)
    before = digest(COLLECTION)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("gfm.geopile.assemble.ManifestWriter", fail)
    with pytest.raises(OSError, match="disk full"):
        assemble(params)
    assert digest(COLLECTION) == before
    assert [path.name for path in COLLECTION.parent.iterdir()] == ["geopile"]


def test_a_file_that_changes_while_it_is_read_is_not_written_under_old_hashes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(work / "raw/photos/a.png", picture(1))
    from gfm.geopile import assemble as module

    choose = module.choose

    def change(*arguments: Any) -> Any:
        save(work / "raw/photos/a.png", picture(2))
        return choose(*arguments)

    monkeypatch.setattr(module, "choose", change)
    with pytest.raises(DataError, match=r"a\.png: changed while the collection was being built"):
        assemble(parameters({"photos": {"format": "images"}}))


@pytest.mark.field
def test_real_scenes_become_tiles_with_date_place_and_resolution(work: Path) -> None:
    if not FIELD.is_dir():
        pytest.skip("../shared/imagery is missing")
    aerial = {"format": "scenes", "imagery": {"bands": dict.fromkeys(["R", "G", "B", "NIR"]), "nodata": 0}, "limit": 30}
    landsat = {
        "format": "scenes",
        "imagery": {"bands": dict.fromkeys(["SWIR1", "NIR", "Red", "Green"]), "nodata": 0},
        "composite": {"R": "NIR", "G": "Red", "B": "Green"},
        "limit": 10,
    }
    assemble(parameters({"naip": aerial, "landsat": landsat}, raw=str(FIELD.resolve()), tile_px=128))
    table = manifest()
    naip, satellite = (table[table.source == source] for source in ("naip", "landsat"))
    assert (len(naip), len(satellite)) == (30, 10)
    assert set(naip.gsd_m) == {5.0}
    assert satellite.gsd_m.between(85, 95).all()
    assert naip.date.str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert satellite.date.str.fullmatch(r"(19|20)\d\d").all()
    green = np.mean([image.mean((0, 1)) for name, image in images().items() if name.startswith("naip")], axis=0)
    assert green.argmax() == 1  # fields in summer
