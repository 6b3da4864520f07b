"""Assembling again: only what changed is done, the result is what a first assembly gives, and no kill loses more."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from PIL import Image
from rasterio.transform import from_origin

from gfm.errors import DataError, GfmError
from gfm.geopile import findings, stored_shards
from gfm.geopile.assemble import assemble
from gfm.geopile.cache import FOLDER
from gfm.layout import COLLECTION, MANIFEST, SHARDS, manifest_without
from gfm.params import Params

SOURCES: dict[str, dict[str, Any]] = {
    "first": {"format": "class-folders"},
    "second": {"format": "images"},
    "packed": {"format": "archive"},
}
SHARD_MB = 0.03


def picture(seed: int, px: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC))


def save(path: Path, seed: int, px: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, px)).save(path)


def raw_parameters(sources: dict[str, dict[str, Any]], raw: Path, **geopile: Any) -> dict[str, Any]:
    declared = {name: {"licence": "CC0", "root": name} | source for name, source in sources.items()}
    return {
        "paths": {"raw": str(raw)},
        "geopile": {"workers": 1, "shard_mb": SHARD_MB, **geopile, "sources": declared},
        "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
        "pretrain": {"gfm": {"recipe": "gfm"}},
        "tasks": {
            "t": {
                "kind": "classification",
                "data": {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}},
            }
        },
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw imagery: files of classes, loose files, an archive; 1 of `second` and 1 of `packed` are copies of `first`."""
    raw = tmp_path_factory.mktemp("raw")
    for number in range(40):
        save(raw / f"first/class{number % 2}/{number:02d}.png", number)
        save(raw / f"second/{number:02d}.png", 100 + number)
    save(raw / "second/copy.png", 3, px=40)  # smaller, so that it is dropped
    (raw / "second/broken.png").write_bytes(b"no image")
    (raw / "packed").mkdir()
    with tarfile.open(raw / "packed/a.tar", "w") as tar:
        for number in (*range(230, 200, -1), 5):
            buffer = io.BytesIO()
            Image.fromarray(picture(number, 40 if number == 5 else 48)).save(buffer, "png")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return raw


class Site:
    """Imagery and the working folder that assembles it."""

    def __init__(self, folder: Path, original: Path) -> None:
        self.folder, self.raw = folder, folder / "raw"
        shutil.copytree(original, self.raw)

    def assembled(self, *names: str, fresh: bool = False, **geopile: Any) -> dict[str, str]:
        """Every file of the collection by its hash; `fresh`: in a folder that remembers nothing."""
        work = self.folder / "fresh" if fresh else self.folder
        if fresh:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        chosen = {name: SOURCES[name] | geopile.pop(name, {}) for name in names or SOURCES}
        if scenes := geopile.pop("scenes", None):
            chosen["scenes"] = scenes
        splits = {"block_km": geopile.pop("block_km", 2.0)}
        with chdir(work):
            assemble(Params.model_validate({**raw_parameters(chosen, self.raw, **geopile), "splits": splits}))
            return digest(COLLECTION)

    def hollow(self, *names: str) -> None:
        """Make the files of sources unreadable, so that reading one would be seen; name, size and time stay."""
        for name in names:
            for path in (self.raw / name).rglob("*"):
                if path.is_file():
                    status = path.stat()
                    path.write_bytes(bytes(status.st_size))
                    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def site(tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    return Site(tmp_path, original)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Which files are decoded in the first pass, and which images are encoded in the second; `clear()` them."""
    seen: dict[str, list[str]] = {"decoded": [], "encoded": []}
    inspect, encode = findings.inspect, stored_shards.encode_images

    def inspected(params: Params, jobs: Any) -> Any:
        seen["decoded"] += [f"{job.source}/{job.file}" for job in jobs]
        return inspect(params, jobs)

    def encoded(params: Params, images: Any) -> Any:
        seen["encoded"] += [image.row.id for image in images]
        return encode(params, images)

    monkeypatch.setattr(findings, "inspect", inspected)
    monkeypatch.setattr(stored_shards, "encode_images", encoded)
    return seen


def clear(done: dict[str, list[str]]) -> None:
    for seen in done.values():
        seen.clear()


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_nothing_is_read_again_where_nothing_changed(
    site: Site, done: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    first = site.assembled()
    assert len([name for name in first if name.endswith(".tar")]) > 10
    assert "known from before" not in capsys.readouterr().out
    clear(done)
    site.hollow(*SOURCES)
    shutil.rmtree(COLLECTION)  # as DVC does before a stage
    assert site.assembled() == first
    assert done == {"decoded": [], "encoded": []}
    shards = len(list(SHARDS.glob("*.tar")))
    assert f"112 of 112 images were known from before, {shards} of {shards} shards" in capsys.readouterr().out


def test_one_more_source_leaves_the_others_unread(site: Site, done: dict[str, list[str]]) -> None:
    expected = site.assembled(fresh=True)
    site.assembled("first", "second")
    site.hollow("first", "second")
    clear(done)
    assert site.assembled() == expected
    assert {file.split("/")[0] for file in done["decoded"]} == {"packed"}
    assert {image.split("/")[0] for image in done["encoded"]} == {"packed"}


def test_one_source_less_is_made_of_what_is_known(site: Site, done: dict[str, list[str]]) -> None:
    expected = site.assembled("second", "packed", fresh=True)
    site.assembled()
    clear(done)
    assert site.assembled("second", "packed") == expected
    assert done["decoded"] == []
    assert len(done["encoded"]) < 30  # the two shards to which a copy of `first` comes back


@pytest.mark.parametrize(
    "change",
    [{"quality": {"min_sharpness": 250.0}}, {"near_duplicate_bits": 12}, {"quality": {"min_px": 45}}],
    ids=["sharpness", "duplicates", "size"],
)
def test_another_threshold_judges_again_without_decoding(
    site: Site, done: dict[str, list[str]], change: dict[str, Any]
) -> None:
    expected = site.assembled(fresh=True, **change)
    before = site.assembled()
    clear(done)
    assert site.assembled(**change) == expected
    assert done["decoded"] == []
    assert len(done["encoded"]) < 112 or change["quality"] == {"min_sharpness": 250.0}
    assert expected["dropped.csv"] != before["dropped.csv"] or "near_duplicate_bits" in change


def test_one_file_more_one_changed_and_one_less_touch_their_shards_only(site: Site, done: dict[str, list[str]]) -> None:
    site.assembled()
    save(site.raw / "second/07.png", 777)
    save(site.raw / "second/new.png", 778)
    (site.raw / "second/30.png").unlink()
    site.hollow("first", "packed")
    clear(done)
    again = site.assembled()
    assert {file.split("/")[0] for file in done["decoded"]} == {"second"}
    assert {image.split("/")[0] for image in done["encoded"]} == {"second"}
    shutil.rmtree(FOLDER)
    with pytest.raises(DataError, match="no image in the archives"):
        site.assembled()
    assert digest(COLLECTION) == again


def test_a_limit_is_chosen_from_names_that_are_known(site: Site, done: dict[str, list[str]]) -> None:
    first = site.assembled(packed={"limit": 7})
    site.hollow(*SOURCES)
    clear(done)
    assert site.assembled(packed={"limit": 7}) == first
    assert done == {"decoded": [], "encoded": []}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it is the collection's file too, by a hard link
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [flip, lambda path: os.truncate(path, path.stat().st_size // 2), Path.unlink, lambda path: os.truncate(path, 0)],
    ids=["bit flipped", "cut", "gone", "empty"],
)
def test_a_damaged_cache_is_made_again(site: Site, harm: Callable[[Path], object]) -> None:
    first = site.assembled()
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    for path in files[::3]:
        harm(path)
    assert site.assembled() == first


def test_a_shard_that_was_edited_in_place_is_written_again(site: Site) -> None:
    first = site.assembled()
    shard = next(SHARDS.glob("first-*.tar"))
    with shard.open("r+b") as file:  # a hard link: the remembered file is edited too
        file.write(b"edited")
    assert site.assembled() == first


def test_the_cache_holds_what_the_last_assembly_used_and_no_more(site: Site) -> None:
    site.assembled("second")
    alone = digest(FOLDER)
    site.assembled()
    assert len(digest(FOLDER)) > len(alone)
    site.assembled("second")
    assert digest(FOLDER) == alone


def test_a_shard_takes_no_room_twice_but_is_a_copy_where_links_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.assembled()
    assert {path.stat().st_nlink for path in SHARDS.glob("*.tar")} == {2}

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    assert site.assembled() == first
    assert {path.stat().st_nlink for path in SHARDS.glob("*.tar")} == {1}


def test_what_changed_behind_an_equal_time_is_said_and_mended_by_the_next_run(site: Site) -> None:
    site.assembled()
    shutil.rmtree(FOLDER / "shards")
    path = site.raw / "second/07.png"
    status = path.stat()
    save(path, 777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    data = path.read_bytes()
    path.write_bytes(data[: status.st_size] + bytes(max(0, status.st_size - len(data))))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"07\.png: .*run `gfm assemble` again"):
        site.assembled()
    assert site.assembled() == site.assembled(fresh=True)


def test_a_file_that_could_not_be_read_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = site.assembled(fresh=True)
    opened = Path.open

    def refused(path: Path, *mode: Any, **options: Any) -> Any:
        if path.name == "07.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *mode, **options)

    with monkeypatch.context() as context:
        context.setattr(Path, "open", refused)
        site.assembled()
    with (COLLECTION / "quarantine.csv").open(newline="") as file:
        assert any("permission denied" in row["reason"] for row in csv.DictReader(file))
    assert site.assembled() == expected


def test_an_archive_goes_on_from_the_part_it_was_stopped_in(
    site: Site, done: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "PART_ROWS", 4)
    expected = site.assembled("packed", fresh=True)
    clear(done)
    write = findings.write_part
    written = 0

    def stop(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > 3:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as context:
        context.setattr(findings, "write_part", stop)
        with pytest.raises(KeyboardInterrupt):
            site.assembled("packed")
    clear(done)
    assert site.assembled("packed") == expected
    assert len(done["decoded"]) == 31 - 12 + 1  # and the archive's end


# Where a process is killed, as (module, function, call), and whether it is inside the call or after it.
MOMENTS = {
    "first pass": ("gfm.geopile.findings", "write_part", 2),
    "second pass, in a shard": ("gfm.geopile.shards", "ShardWriter.append", 2),
    "second pass, between file and note": ("gfm.geopile.cache", "Cache.keep", 9),
    "manifest": ("gfm.geopile.manifest", "ManifestWriter.add", 1),
    "pruning": ("gfm.geopile.cache", "Cache.prune", 1),
}
KILLED = """
import importlib, os, signal, sys
module, name, call = sys.argv[1], sys.argv[2].split("."), int(sys.argv[3])
owner = importlib.import_module(module)
for part in name[:-1]:
    owner = getattr(owner, part)
whole, calls = getattr(owner, name[-1]), 0
def killed(*arguments, **options):
    global calls
    calls += 1
    result = whole(*arguments, **options)
    if calls == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name[-1], killed)
sys.argv = ["gfm", "assemble"]
from gfm.cli import main
main()
"""


def test_a_kill_at_any_moment_ends_in_the_same_bytes(site: Site) -> None:
    expected = site.assembled(fresh=True)
    params = raw_parameters(SOURCES, site.raw)
    started = []
    for number, moment in enumerate(MOMENTS.values()):
        work = site.folder / f"killed{number}"
        work.mkdir()
        (work / "params.yaml").write_text(yaml.safe_dump(params))
        command = [sys.executable, "-c", KILLED, *map(str, moment)]
        started.append((work, subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL)))
    for work, process in started:
        assert process.wait(timeout=300) == -signal.SIGKILL
        with chdir(work):
            assert not COLLECTION.exists()
            assemble(Params.model_validate(params))
            assert digest(COLLECTION) == expected
            assert not list(FOLDER.rglob("*.part"))
            assert sorted(path.name for path in COLLECTION.parent.iterdir()) == ["geopile"]


@pytest.mark.parametrize("where", ["gfm.geopile.cache.Cache.write", "gfm.geopile.shards.ShardWriter.append"])
def test_a_full_disk_is_one_error_that_keeps_what_is_done(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = site.assembled("first")
    expected = site.assembled(fresh=True)
    module, owner, name = where.rsplit(".", 2)
    write = getattr(getattr(sys.modules[module], owner), name)
    calls = 0

    def full(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    with monkeypatch.context() as context:
        context.setattr(where, full)
        with pytest.raises(GfmError, match=r"no space left on device; make room and run `gfm assemble` again"):
            site.assembled()
    assert digest(COLLECTION) == before
    assert not list(FOLDER.rglob("*.part"))
    assert site.assembled() == expected


@pytest.mark.parametrize("left_out", SOURCES)
def test_leaving_a_source_out_gives_what_an_assembly_without_it_gives(
    site: Site, done: dict[str, list[str]], left_out: str
) -> None:
    others = [name for name in SOURCES if name != left_out]
    site.assembled(*others, fresh=True)
    alone = pd.read_parquet(site.folder / "fresh" / MANIFEST)
    plain = site.assembled()
    clear(done)
    with_variants = site.assembled(leave_out=list(SOURCES))
    assert done["decoded"] == []
    returned = {name for name in with_variants if name.startswith("shards/returned/")}
    assert returned == {"shards/returned/packed-00000.tar", "shards/returned/second-00000.tar"}
    rest = {name for name in with_variants if name not in plain}
    assert rest == returned | {f"without/{name}.parquet" for name in SOURCES}
    assert {name: with_variants[name] for name in plain if name != "summary.json"} == {
        name: plain[name] for name in plain if name != "summary.json"
    }
    table = pd.read_parquet(manifest_without(left_out))
    columns = [name for name in table.columns if name not in ("shard", "offset")]
    pd.testing.assert_frame_equal(table[columns], alone[columns])
    for row in table.itertuples():
        with (SHARDS / str(row.shard)).open("rb") as file:
            file.seek(row.offset)
            assert file.read(row.size)[:4] == b"\x89PNG"


def test_settings_of_encoder_and_ground_and_a_file_beside_a_scene_touch_what_they_are_about(
    site: Site, done: dict[str, list[str]]
) -> None:
    scene = {"scenes": {"format": "scenes"}}
    (site.raw / "scenes").mkdir()
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, 10, 10)}
    profile = {"driver": "GTiff", "width": 128, "height": 64, "count": 3, "dtype": "uint8", **place}
    with rasterio.open(site.raw / "scenes/a.tif", "w", **profile) as file:
        file.write(np.moveaxis(np.hstack([picture(301, 64), picture(302, 64)]), -1, 0))
    expected = site.assembled("first", fresh=True, tile_px=64, jpeg_quality=70, **scene)
    site.assembled("first", tile_px=64, **scene)
    site.hollow("first")
    clear(done)
    assert site.assembled("first", tile_px=64, jpeg_quality=70, **scene) == expected
    assert done == {"decoded": [], "encoded": ["scenes/a.tif#0,0", "scenes/a.tif#64,0"]}
    clear(done)
    site.assembled("first", tile_px=64, jpeg_quality=70, block_km=0.3, **scene)
    assert done == {"decoded": [], "encoded": []}
    assert pd.read_parquet(MANIFEST)["place"].str.startswith("ground-0.3km").sum() == 2
    (site.raw / "scenes/a.tif.aux.xml").write_text("<PAMDataset/>")
    site.assembled("first", tile_px=64, jpeg_quality=70, block_km=0.3, **scene)
    assert done == {"decoded": ["scenes/a.tif"], "encoded": []}


def test_images_of_one_archive_that_are_kept_and_that_return_are_both_found(site: Site) -> None:
    """They stand in the archive in another order than in the shards: those that return come first here."""
    with tarfile.open(site.raw / "packed/a.tar", "w") as tar:
        for name, number, px in (("copy", 5, 40), ("own", 250, 48)):
            buffer = io.BytesIO()
            Image.fromarray(picture(number, px)).save(buffer, "png")
            member = tarfile.TarInfo(f"{name}.png")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    written = site.assembled(leave_out=["first"])
    assert written == site.assembled(leave_out=["first"], fresh=True)
    with chdir(site.folder):
        assert "packed/a.tar/copy.png" in pd.read_parquet(manifest_without("first"))["id"].tolist()
        assert "packed/a.tar/copy.png" not in pd.read_parquet(MANIFEST)["id"].tolist()


def test_another_stored_size_is_written_again(site: Site) -> None:
    whole = site.assembled()
    smaller = site.assembled(store_px=36)
    assert smaller == site.assembled(store_px=36, fresh=True)
    assert smaller != whole == site.assembled()
    assert site.assembled(store_px=40) == site.assembled(store_px=40, fresh=True)


def test_a_cached_file_over_another_ones_name_is_not_believed(site: Site) -> None:
    before = site.assembled()
    one, other, *_ = sorted((site.folder / FOLDER / "findings").iterdir())
    shutil.copy(one, other)
    assert site.assembled() == before


@pytest.mark.parametrize("place", [".gfm", ".gfm/assembly/findings"])
def test_something_else_where_the_cache_should_be_is_one_error(site: Site, place: str) -> None:
    (site.folder / place).parent.mkdir(parents=True, exist_ok=True)
    (site.folder / place).write_text("mine")
    with pytest.raises(GfmError, match=r"\.gfm"):
        site.assembled()


def test_a_collection_behind_a_link_stays_behind_it(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere/geopile"
    elsewhere.mkdir(parents=True)
    (site.folder / COLLECTION).parent.mkdir(parents=True, exist_ok=True)
    (site.folder / COLLECTION).symlink_to(elsewhere)
    first = site.assembled()
    assert (site.folder / COLLECTION).is_symlink() and digest(elsewhere) == first == site.assembled()
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["geopile"]


def test_an_image_dropped_for_a_near_copy_of_its_twin_is_a_near_duplicate(site: Site) -> None:
    shutil.rmtree(site.raw / "second")
    save(site.raw / "second/a.png", 3, px=40)
    save(site.raw / "second/b.png", 3, px=40)
    site.assembled("first", "second")
    with (site.folder / COLLECTION / "dropped.csv").open() as file:
        reasons = {row["id"]: (row["reason"], row["kept"]) for row in csv.DictReader(file)}
    kept = "first/class1/03.png"
    assert reasons == dict.fromkeys(("second/a.png", "second/b.png"), ("near duplicate", kept))


def test_a_scene_of_another_shape_under_an_equal_time_is_told(site: Site) -> None:
    path = site.raw / "scenes/x.tif"
    path.parent.mkdir()

    def write(width: int, height: int) -> None:
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
        transform = from_origin(500000, 5000000, 1, 1)
        with rasterio.open(path, "w", width=width, height=height, transform=transform, **profile) as file:
            file.write(picture(900, 96).transpose(2, 0, 1)[:, :height, :width])
        os.truncate(path, 60_000)
        os.utime(path, ns=(1, 1))

    scenes = {"format": "scenes"}
    write(96, 48)
    site.assembled("first", scenes=scenes, tile_px=48)
    write(48, 96)
    with pytest.raises(DataError, match=r"x\.tif.*run `gfm assemble` again"):
        site.assembled("first", scenes=scenes, tile_px=48, jpeg_quality=80)
    assert site.assembled("first", scenes=scenes, tile_px=48, jpeg_quality=80)
