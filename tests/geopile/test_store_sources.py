"""Sources in an object store give what the same files give on disk; a store that fails is one clear error."""

from __future__ import annotations

import errno
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pandas as pd
import pytest
import rasterio
from pydantic import ValidationError
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile.assemble import assemble
from gfm.geopile.first_files import check_first_files
from gfm.geopile.quarantine import Refusal
from gfm.geopile.sources import list_files, read_tiles, stamp
from gfm.imagery import store
from gfm.imagery.raster import ImageError
from gfm.imagery.store import Store, StoreError, patiently
from gfm.layout import COLLECTION
from gfm.params import ImagesSource, Params, ScenesSource
from gfm.raw_imagery import check_imagery

BUCKET = "memory://bucket/geo"


def picture(seed: int, side: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


def png(seed: int) -> bytes:
    return bytes(cv2.imencode(".png", picture(seed))[1])


def geotiff(seed: int, side: int = 160, metres: float = 10) -> bytes:
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, metres, metres)}
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 64, "blockysize": 64}
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile, **place) as file:
            file.write(np.moveaxis(picture(seed, side), -1, 0))
        return bytes(memory.read())


def tarred(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for seed, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(png(50 + seed))
            tar.addfile(info, io.BytesIO(png(50 + seed)))
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(name, png(60 + seed))
    return buffer.getvalue()


FILES = {
    "photos/a.png": png(1),
    "photos/deep/b_20200101.png": png(2),
    "photos/cut.png": png(3)[:-40],
    "photos/text.png": b"<html>",
    "photos/empty.png": b"",
    "classes/port/c.png": png(4),
    "classes/port/d.tif": geotiff(5, 64),
    "classes/tables/labels.csv": b"image,water,trees\nc.png,1,0\nd.tif,1,1\n",
    "scenes/e_20210304.tif": geotiff(6),
    "scenes/cut.tif": geotiff(7)[:9000],
    "scenes/page.tif": b"<html>",
    "archives/f.tar.gz": tarred("x/1.png", "x/2.png"),
    "archives/g.zip": zipped("z/4.png"),
    "archives/cut.tar.gz": tarred("y/3.png")[:900],
}
SOURCES: dict[str, dict[str, Any]] = {
    "photos": {"format": "images"},
    "classes": {"format": "class-folders", "include": ["port/*"], "label_tables": "tables/*.csv"},
    "scenes": {"format": "scenes"},
    "coarse": {"format": "scenes", "root": "scenes", "resample_m": 20.0, "include": ["e_*.tif"]},
    "archives": {"format": "archive", "labels": "folders"},
}


def parameters(where: str | None, sources: dict[str, dict[str, Any]] = SOURCES) -> Params:
    declared = {name: {"root": name, "licence": "CC0", "store": where, **one} for name, one in sources.items()}
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
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The files in a store, and nothing on disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "WAITS_S", (0.0, 0.0, 0.0))
    system = fsspec.filesystem("memory")
    for name, data in FILES.items():
        system.pipe(f"/bucket/geo/{name}", data)
    yield system
    system.rm("/bucket", recursive=True)


def outputs() -> tuple[pd.DataFrame, str, bytes]:
    manifest = pd.read_parquet(COLLECTION / "manifest.parquet")
    shards = b"".join(path.read_bytes() for path in sorted((COLLECTION / "shards").iterdir()))
    return manifest, (COLLECTION / "quarantine.csv").read_text(), shards


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_store_gives_the_bytes_that_a_folder_gives(bucket: Any, tmp_path: Path, protocol: str) -> None:
    for name, data in FILES.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(data)
    assemble(parameters(None))
    manifest, quarantine, shards = outputs()
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    assemble(parameters(BUCKET if protocol == "memory" else f"file://{tmp_path}/elsewhere"))
    again = outputs()
    pd.testing.assert_frame_equal(again[0], manifest)
    assert again[1] == quarantine
    assert again[2] == shards
    assert set(manifest.source) >= {"photos", "classes", "scenes", "archives"}
    assert len(quarantine.splitlines()) == 1 + 6  # cut, text and empty images, cut and false scenes, a cut archive


def test_check_reads_the_first_file_and_asks_for_no_folder_of_it(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "raw/t").mkdir(parents=True)
    sources = {name: SOURCES[name] for name in ("classes", "coarse")}
    sources["archives"] = {"format": "archive", "include": ["*.zip"]}
    assert check_imagery(parameters(BUCKET, sources), tmp_path) == ""
    assert check_first_files(parameters(BUCKET, sources), tmp_path / "raw") == []
    wrong = {"scenes": {"format": "scenes", "include": ["e_*.tif"], "imagery": {"dtype": "uint16"}}}
    (remark,) = check_first_files(parameters(BUCKET, wrong), tmp_path / "raw")
    assert remark.endswith("e_20210304.tif: is uint8, declared uint16")


class Flaky:
    """A file whose reading fails `times` times, each at another place, as a lost connection does."""

    def __init__(self, file: Any, failures: list[Exception]) -> None:
        self.file, self.failures = file, failures

    def read(self, size: int = -1) -> bytes:
        if self.failures:
            raise self.failures.pop()
        return bytes(self.file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def flaky(monkeypatch: pytest.MonkeyPatch, system: Any, failures: list[Exception]) -> None:
    opened = type(system).open
    monkeypatch.setattr(
        type(system), "open", lambda self, path, mode="rb", **more: Flaky(opened(self, path, mode), failures)
    )


def read(name: str, source: Any) -> list[Any]:
    root = Path("raw") / source.root
    (file,) = [file for file in list_files("s", source, root) if file.startswith(name)]
    return list(read_tiles(source, root, file, 64))


PHOTOS = ImagesSource(format="images", root="photos", licence="x", store=BUCKET)
SCENES = ScenesSource(format="scenes", root="scenes", licence="x", store=BUCKET)


@pytest.mark.parametrize(("source", "name"), [(PHOTOS, "a.png"), (SCENES, "e_")])
def test_a_lost_connection_is_tried_again_from_where_it_stood(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, source: Any, name: str
) -> None:
    before = [tile.pixels for tile in read(name, source)]
    failures: list[Exception] = [ConnectionResetError(), TimeoutError(), OSError(errno.ETIMEDOUT, "timed out")]
    flaky(monkeypatch, bucket, failures)
    again = [tile.pixels for tile in read(name, source)]
    assert failures == []
    assert all(np.array_equal(one, other) for one, other in zip(again, before, strict=True))


@pytest.mark.parametrize(("source", "name"), [(PHOTOS, "a.png"), (SCENES, "e_")])
def test_a_store_that_stays_away_ends_with_its_address_and_no_quarantine(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, source: Any, name: str
) -> None:
    flaky(monkeypatch, bucket, [ConnectionResetError("gone")] * 40)
    said = rf"^{BUCKET}/{source.root}/{name}.*: not reachable after 4 attempts: ConnectionResetError: gone; look at"
    with pytest.raises(StoreError, match=said):
        read(name, source)


def test_a_file_that_may_not_be_read_is_quarantined_and_not_asked_for_again(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [PermissionError(13, "Forbidden")] * 2
    flaky(monkeypatch, bucket, failures)
    with pytest.raises(ImageError, match="not readable: permission denied"):
        read("a.png", PHOTOS)
    assert len(failures) == 1


def test_an_address_without_files_or_without_its_package_is_one_error_that_names_the_source(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"geopile\.sources\.p: memory://bucket/none/photos holds no file that matches"):
        list_files("p", PHOTOS.model_copy(update={"store": "memory://bucket/none"}), Path("raw/photos"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    with pytest.raises(StoreError, match=r"geopile\.sources\.p\.store: gs://b/photos: .* missing; pip install gcsfs"):
        list_files("p", PHOTOS.model_copy(update={"store": "gs://b"}), Path("raw/photos"))
    with pytest.raises(
        StoreError, match=r"geopile\.sources\.p\.store: s4://b/photos: no protocol s4:// is known; use s3"
    ):
        list_files("p", PHOTOS.model_copy(update={"store": "s4://b"}), Path("raw/photos"))
    with pytest.raises(DataError, match=r"nowhere/photos holds no file .*; correct geopile\.sources\.p\.store, "):
        list_files("p", PHOTOS.model_copy(update={"store": "file:///nowhere"}), Path("raw/photos"))


class Web(SimpleHTTPRequestHandler):
    """A web server without ranges that forbids one file and is busy, at first, for another."""

    busy = 2

    def do_GET(self) -> None:
        if "forbidden" in self.path:
            self.send_error(403)
        elif "b_2020" in self.path and Web.busy:
            Web.busy -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_web_server_s_folder_is_a_source(bucket: Any, tmp_path: Path) -> None:
    for name, data in {**FILES, "photos/forbidden.png": png(9)}.items():
        (tmp_path / "www" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "www" / name).write_bytes(data)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=tmp_path / "www")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assemble(
            parameters(f"http://127.0.0.1:{server.server_port}", {name: SOURCES[name] for name in ("photos", "scenes")})
        )
        server.shutdown()
    manifest, quarantine, _ = outputs()
    assert manifest.id[:2].tolist() == ["photos/a.png", "photos/deep/b_20200101.png"]
    assert set(manifest.id[2:]) == {f"scenes/e_20210304.tif#{x},{y}" for x in (0, 64) for y in (0, 64)}
    assert "photos,photos/forbidden.png,not readable: permission denied" in quarantine
    assert Web.busy == 0


def test_a_server_that_is_not_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAITS_S", (0.0,))
    with pytest.raises(
        StoreError, match=r"http://127\.0\.0\.1:9/x: not reachable after 2 attempts: ClientConnectorError"
    ):
        list(Store("http://127.0.0.1:9/x").files())


def test_credentials_that_are_missing_are_said_to_be_looked_for_in_the_environment() -> None:
    class NoCredentialsError(Exception):
        pass

    def ask() -> None:
        raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(StoreError, match=r"s3://b: NoCredentialsError: Unable to locate .*; look at the credentials"):
        patiently("s3://b", ask)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://key:secret@bucket/x", "must not hold a password"),
        ("https://host/x?X-Amz-Signature=1", "without . and #"),
        ("bucket/x", "string_pattern_mismatch|should match pattern"),
        ("simplecache::s3://bucket", "string_pattern_mismatch|should match pattern"),
    ],
)
def test_an_address_with_credentials_or_without_a_protocol_is_refused(address: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        parameters(address)
    assert "secret" not in str(caught.value.errors(include_input=False))


def test_bands_in_files_of_their_own_are_read_from_disk_only() -> None:
    with pytest.raises(ValidationError, match="band-files are read from disk only"):
        parameters(BUCKET, {"b": {"format": "band-files"}})


def test_a_stamp_changes_with_the_file_and_with_nothing_else(bucket: Any, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    before = stamp(PHOTOS, root, "a.png")
    assert stamp(PHOTOS, root, "a.png") == before
    bucket.pipe("/bucket/geo/photos/a.png", png(9)[:-1] + b"x")
    assert stamp(PHOTOS, root, "a.png") != before
    assert stamp(PHOTOS, root, "none.png")[:2] == ("none.png", 0)
    on_disk = PHOTOS.model_copy(update={"store": None})
    root.mkdir()
    (root / "a.png").write_bytes(b"1")
    first = stamp(on_disk, root, "a.png")
    (root / "b.png").write_bytes(b"1")
    assert stamp(on_disk, root, "a.png") == first
    (root / "a.png").write_bytes(b"12")
    assert stamp(on_disk, root, "a.png") != first
    assert stamp(on_disk, root, "none.png")[:2] == ("none.png", 0)
    (root / "a.tif").write_bytes(b"1")
    plain = stamp(on_disk, root, "a.tif")
    (root / "a.tif.ovr").write_bytes(b"1")
    assert stamp(on_disk, root, "a.tif") != plain


def test_names_that_no_folder_could_hold_are_quarantined_one_by_one(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe("/bucket/geo/odd/good.png", png(1))
    monkeypatch.setattr(Store, "files", lambda self: iter(["good.png", "a//b.png"]))
    assemble(parameters(BUCKET, {"odd": {"format": "images"}}))
    manifest, quarantine, _ = outputs()
    assert manifest.id.tolist() == ["odd/good.png"]
    assert quarantine.splitlines()[1] == ",".join(
        Refusal("odd", "odd/a//b.png", "its name has an empty or dotted part")
    )


def test_a_huge_file_is_refused_by_its_declared_size(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfm.imagery.raster.MAX_FILE_BYTES", 100)
    with pytest.raises(ImageError, match=r"is [\d,]+ bytes, more than 100"):
        read("a.png", PHOTOS)


def test_a_scene_is_read_by_ranges_and_not_as_a_whole(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe("/bucket/geo/scenes/large.tif", geotiff(1, 2048))
    asked: list[int] = []
    opened = type(bucket).open

    class Counted(Flaky):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return super().read(size)

    monkeypatch.setattr(
        type(bucket), "open", lambda self, path, mode="rb", **more: Counted(opened(self, path, mode), [])
    )
    next(iter(read_tiles(SCENES, Path("raw/scenes"), "large.tif", 64)))
    assert min(asked) >= 0
    assert sum(asked) < 2048 * 2048 * 3 / 10
