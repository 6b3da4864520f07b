"""Images in archives: read where they lie, by one pass, and nothing in an archive can do harm."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile.archives import entries
from gfm.geopile.archives.tar import _Forward
from gfm.geopile.assemble import assemble
from gfm.imagery.raster import ImageError
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.layout import COLLECTION
from gfm.params import Params

KINDS = ("a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.zip")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/s").mkdir(parents=True)
    yield tmp_path


def picture(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def geotiff(seed: int) -> bytes:
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5500000, 10, 10)}
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8"} | place
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(np.moveaxis(picture(seed), -1, 0))
        return bytes(memory.read())


def tarred(members: list[tuple[str, bytes] | tarfile.TarInfo], **options: Any) -> bytes:
    """A tar of files (name, data), and of entries without data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def packed(path: Path, members: dict[str, bytes]) -> None:
    """An archive of the kind that the path's suffix names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    data = tarred(list(members.items()))
    if path.suffix in (".gz", ".tgz"):
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)


def parameters(workers: int = 1, sources: dict[str, Any] | None = None, shard_mb: float = 64, **source: Any) -> Params:
    """Parameters of one source `s`, an archive unless it says otherwise, or of several."""
    every = sources or {"s": {"format": "archive", **source}}
    declared = {name: {"root": name, "licence": "CC0", **one} for name, one in every.items()}
    data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    return Params.model_validate(
        {
            "paths": {"raw": "raw"},
            "geopile": {"tile_px": 64, "workers": workers, "shard_mb": shard_mb, "sources": declared},
            "splits": {"block_km": 1.0},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": data}},
        }
    )


def manifest() -> pd.DataFrame:
    return pd.read_parquet(COLLECTION / "manifest.parquet").set_index("id")


def kept() -> list[str]:
    """The ids without the source."""
    return [name.removeprefix("s/") for name in manifest().index]


def labels() -> dict[str, str | None]:
    """Id without the source -> label."""
    found = manifest().label
    return {name.removeprefix("s/"): None if pd.isna(label) else str(label) for name, label in found.items()}


def quarantined() -> dict[str, str]:
    """File without the source's root -> reason."""
    with (COLLECTION / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"].removeprefix("s/"): row["reason"] for row in csv.DictReader(file)}


def summary(source: str = "s") -> dict[str, Any]:
    return dict(json.loads((COLLECTION / "summary.json").read_text())["sources"][source])


def stored() -> dict[str, bytes]:
    reader = ShardReader(COLLECTION / "shards")
    return {str(row.Index): reader.bytes(row.shard, row.offset, row.size) for row in manifest().itertuples()}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What a user declares and gets


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_out_of_every_kind_of_archive_byte_for_byte_and_nothing_is_extracted(work: Path, kind: str) -> None:
    members = {f"./tiles/{number}.png": png(number) for number in (2, 1, 3)} | {"notes.txt": b"x"}
    packed(work / "raw/s" / kind, members)
    assemble(parameters())
    assert stored() == {f"s/{kind}/tiles/{number}.png": png(number) for number in (1, 2, 3)}
    assert set(manifest().file) == {f"s/{kind}"}
    assert manifest().place.tolist() == list(manifest().index)
    assert quarantined() == {}
    assert summary() | {"dropped": None} == {
        "listed": 3,
        "met": 3,
        "quarantined": 0,
        "images": 3,
        "kept": 3,
        "dropped": None,
        "ignored": {"other files": 1},
    }
    assert sorted(path.name for path in work.rglob("*.png")) == []


def test_an_archive_gives_what_the_folder_of_its_files_gives(work: Path) -> None:
    files = {"port/a_20200830.tif": geotiff(1), "port/b.png": png(2), "field/c.tif": geotiff(3)[:-3000]}
    for name, data in files.items():
        path = work / "raw/loose/a.tar" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed(work / "raw/s/a.tar", files)
    tables, reasons = [], []
    for sources in ({"loose": {"format": "images"}}, {"s": {"format": "archive"}}):
        assemble(parameters(sources=sources))
        table = manifest().drop(columns=["file", "shard", "offset", "source", "geometry"]).reset_index()
        tables.append(table.astype(str).replace("^loose/", "s/", regex=True))
        reasons += list(quarantined().values())
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].loc[0, ["crs", "date", "gsd_m"]].tolist() == ["EPSG:32633", "2020-08-30", "10.0"]
    assert len(reasons) == 2
    assert reasons[0] == reasons[1]


def test_folders_inside_are_classes_where_declared(work: Path) -> None:
    packed(work / "raw/s/a.zip", {"x/port/1.png": png(1), "field/2.png": png(2), "3.png": png(3)})
    assemble(parameters(labels="folders"))
    assert labels() == {"a.zip/x/port/1.png": "port", "a.zip/field/2.png": "field", "a.zip/3.png": None}
    assemble(parameters())
    assert set(labels().values()) == {None}


def test_slippy_names_inside_give_the_ground(work: Path) -> None:
    packed(work / "raw/s/a.tar", {"OAM-1277168-1083840-21.png": png(1), "other.png": png(2)})
    assemble(parameters(georeference="slippy"))
    assert manifest().crs.tolist() == ["EPSG:3857"]
    assert quarantined() == {"a.tar!other.png": "its name carries no slippy-map tile numbers"}


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
def test_the_bytes_do_not_depend_on_the_number_of_processes(
    work: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("gfm.geopile.assemble.FEW_BYTES", 0)  # so that processes are started
    order = np.random.default_rng(0).permutation(60)
    for shard in range(2):
        members = {f"{shard}/{number:03d}.png": png(100 * shard + int(number)) for number in order}
        packed(work / "raw/s" / f"{shard}{kind}", members | {"bad.png": b"page", "twin.png": png(0)})
    (work / "raw/s/cut.tar").write_bytes(tarred([("a.png", png(400)), ("b.png", png(401))])[:-12000])
    Image.fromarray(picture(0)).save(work / "raw/s/not_an_archive.png")
    sources = {"s": {"format": "archive"}, "loose": {"format": "images", "root": "s"}}
    sources["loose"]["include"] = ["*.png"]
    assemble(parameters(sources=sources, shard_mb=0.1))
    alone = digest(COLLECTION)
    shutil.rmtree(".gfm")  # what it remembers
    assert len(manifest()) == 121
    assert len([name for name in alone if name.endswith(".tar")]) > 2
    assemble(parameters(2, sources=sources, shard_mb=0.1))
    assert digest(COLLECTION) == alone


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
def test_a_limit_keeps_so_many_images_and_always_the_same(work: Path, kind: str) -> None:
    for shard in "xy":
        packed(work / f"raw/s/{shard}{kind}", {f"{number}.png": png(9 * ord(shard) + number) for number in range(8)})
    assemble(parameters(limit=5))
    first = kept()
    assert len(first) == 5
    assert (summary()["listed"], summary()["met"]) == (16, 5)
    packed(work / f"raw/s/z{kind}", {"new.png": png(999)})
    assemble(parameters(limit=5))
    assert len(set(kept()) & set(first)) >= 4


def test_a_limit_still_quarantines_the_archive_that_is_cut(work: Path) -> None:
    (work / "raw/s/a.tar").write_bytes(tarred([("a.png", png(1)), ("b.png", png(2))])[: 512 + len(png(1)) + 2000])
    packed(work / "raw/s/b.tar", {f"{number}.png": png(10 + number) for number in range(9)})
    assemble(parameters(limit=2))
    assert len(kept()) == 2
    assert list(quarantined()) == ["a.tar"]


def test_an_archive_that_changes_between_the_passes_is_not_written_under_old_hashes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gfm.geopile import assemble as module

    choose = module.choose

    def changed_to(members: dict[str, bytes]) -> None:
        packed(work / "raw/s/a.tar", {"a.png": png(1)})

        def change(*arguments: Any) -> Any:
            packed(work / "raw/s/a.tar", members)
            return choose(*arguments)

        monkeypatch.setattr(module, "choose", change)
        assemble(parameters())

    with pytest.raises(DataError, match=r"a\.tar.*changed while the collection was being built"):
        changed_to({"a.png": png(2)})
    with pytest.raises(DataError, match=r"a\.tar/a\.png: gone since it was read"):
        changed_to({"b.png": png(1)})


# webdataset


def test_a_key_s_class_comes_from_its_cls_or_txt(work: Path) -> None:
    members = {
        "0.cls": b"7\n",
        "0.jpg": png(0),  # the content says what an image is
        "0.txt": b"a caption",
        "d.x/1.png": png(1),
        "d.x/1.txt": b"harbour",
        "2.tif": geotiff(2),
        "3.png": png(3),
        "3.seg.png": png(4),
        "3.json": b"{}",
    }
    packed(work / "raw/s/00.tar", members)
    assemble(parameters(format="webdataset"))
    assert list(labels().items()) == [
        ("00.tar/0.jpg", "7"),
        ("00.tar/2.tif", None),
        ("00.tar/3.png", None),
        ("00.tar/d.x/1.png", "harbour"),
    ]
    assert manifest().crs["s/00.tar/2.tif"] == "EPSG:32633"
    assert quarantined() == {}
    assert summary()["ignored"] == {"other files": 2}


def test_a_label_key_names_the_field_and_a_label_that_is_none_is_refused_but_not_its_image(work: Path) -> None:
    texts = [
        b'{"kind": "port", "n": 1}',
        b'{"kind": 3}',
        b"{}",
        b"[" * 100_000,
        b'{"kind": [1]}',
        b'{"kind": "\\ud800"}',
    ]
    members: dict[str, bytes] = {}
    for number, text in enumerate(texts):
        members |= {f"{number}.png": png(number), f"{number}.json": text}
    packed(work / "raw/s/00.tar.gz", members)
    assemble(parameters(format="webdataset", label_key="kind"))
    assert list(labels().values()) == ["port", "3", None, None, None, None]
    reason = "holds no field kind with a class in it"
    assert quarantined() == {f"00.tar.gz!{number}.json": reason for number in (2, 3, 4, 5)}


def test_a_caption_is_no_class(work: Path) -> None:
    packed(work / "raw/s/00.tar", {"0.png": png(0), "0.txt": b"a\nb", "1.png": png(1), "1.cls": b"\xff"})
    assemble(parameters(format="webdataset"))
    assert set(labels().values()) == {None}
    assert set(quarantined().values()) == {"is no class of one short line"}
    assert len(quarantined()) == 2


def test_labels_apart_from_their_images_are_counted(work: Path) -> None:
    packed(work / "raw/s/00.tar", {"0.cls": b"1", "1.cls": b"2", "0.png": png(0), "1.png": png(1)})
    assemble(parameters(format="webdataset"))
    assert set(labels().values()) == {None}
    assert summary()["ignored"] == {"labels without an image beside them": 2}


def test_the_image_of_a_shard_that_is_cut_before_its_label_is_kept(work: Path) -> None:
    data = tarred([("0.png", png(0)), ("0.cls", b"7")])
    (work / "raw/s/00.tar").write_bytes(data[: 512 + -(-len(png(0)) // 512) * 512 + 512])
    assemble(parameters(format="webdataset"))
    assert kept() == ["00.tar/0.png"]
    assert quarantined() == {"00.tar": "truncated: ends inside 0.cls"}


def test_a_teacher_may_learn_from_labelled_archives_only(work: Path) -> None:
    raw = parameters(labels="folders").model_dump()
    raw["teacher"] = {"kind": "supervised", "architecture": {}, "sources": ["s"]}
    Params.model_validate(raw)
    raw["geopile"]["sources"]["s"]["labels"] = "none"
    with pytest.raises(ValueError, match=r"teacher\.sources names s, which carries no labels"):
        Params.model_validate(raw)


# What is wrong with archives


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.tar.zst"])
def test_members_before_the_cut_are_kept_and_the_archive_is_quarantined(work: Path, kind: str) -> None:
    packed(work / "raw/s" / kind, {f"{number}.png": png(number) for number in range(60)})
    data = (work / "raw/s" / kind).read_bytes()
    (work / "raw/s" / kind).write_bytes(data[: len(data) * 2 // 3])
    packed(work / "raw/s/whole.tar", {"w.png": png(999)})
    assemble(parameters())
    assert f"{kind}/0.png" in kept()
    assert "whole.tar/w.png" in kept()
    assert 20 < len(kept()) < 61
    (reason,) = quarantined().values()
    assert quarantined().keys() == {kind}
    assert reason.startswith(("truncated", "cut"))


def test_a_zip_without_its_list_and_files_that_are_no_archives_are_quarantined(work: Path) -> None:
    packed(work / "raw/s/cut.zip", {"a.png": png(1)})
    (work / "raw/s/cut.zip").write_bytes((work / "raw/s/cut.zip").read_bytes()[:-30])
    packed(work / "raw/s/good.tar", {"a.png": png(1)})
    (work / "raw/s/page.tar.gz").write_text("<html>not found</html>" * 100)
    (work / "raw/s/nothing.zip").touch()
    os.mkfifo(work / "raw/s/pipe.tar")
    assemble(parameters())
    assert kept() == ["good.tar/a.png"]
    assert {name: reason.split(":")[0] for name, reason in quarantined().items()} == {
        "cut.zip": "truncated or corrupt",
        "page.tar.gz": "not a tar or zip archive, or damaged at its start",
        "nothing.zip": "empty file",
        "pipe.tar": "not a regular file",
    }


def test_a_tar_without_its_end_or_with_more_after_it_is_said_to_be_so(work: Path) -> None:
    one, two = tarred([("a.png", png(1))]), tarred([("b.png", png(2))])
    (work / "raw/s/a.tar").write_bytes(one[: 512 + -(-len(png(1)) // 512) * 512])
    (work / "raw/s/b.tar").write_bytes(two + one)
    assemble(parameters())
    assert kept() == ["a.tar/a.png", "b.tar/b.png"]
    assert quarantined() == {
        "a.tar": "cut off after a.png, or written without a tar's end",
        "b.tar": "goes on after its end, which is not read",
    }


def test_a_damaged_header_does_not_end_a_tar_without_a_word(work: Path) -> None:
    data = bytearray(tarred([("a.png", png(1)), ("b.png", png(2)), ("c.png", png(3))]))
    data[512 + -(-len(png(1)) // 512) * 512 + 3] ^= 1
    (work / "raw/s/a.tar").write_bytes(data)
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert quarantined() == {"a.tar": "cut or damaged after a.png"}


def test_a_flipped_bit_in_gzip_is_noticed_whatever_it_hits(work: Path) -> None:
    data = gzip.compress(tarred([(f"{number}.png", png(number)) for number in range(4)]))
    for place in (len(data) // 2, len(data) - 6):  # inside the images, and in the checksum
        flipped = bytearray(data)
        flipped[place] ^= 1
        (work / f"raw/s/{place}.tar.gz").write_bytes(flipped)
    assemble(parameters())
    assert f"{len(data) // 2}.tar.gz/0.png" in kept()
    archives = {name: reason for name, reason in quarantined().items() if "!" not in name}
    damage = "truncated or corrupt: its compressed data is cut or damaged"
    assert archives.pop(f"{len(data) - 6}.tar.gz") == damage
    assert len(archives) == 1


HARMFUL = [
    (("../up.png", png(1)), "../up.png", "its name leads out of the archive"),
    (("a/../../up.png", png(1)), "a/../../up.png", "its name leads out of the archive"),
    (("..\\up.png", png(1)), "..\\up.png", "its name leads out of the archive"),
    (("/abs.png", png(1)), "/abs.png", "its name leads out of the archive"),
    ((os.fsdecode(b"\xff.png"), png(1)), "\\udcff.png", "its name is not valid UTF-8"),
    (special("soft.png", tarfile.SYMTYPE, "../../secret.png"), "soft.png", "is a link"),
    (special("hard.png", tarfile.LNKTYPE, "good.png"), "hard.png", "is a link"),
    (special("folder", tarfile.SYMTYPE, "/"), "folder", "is a link"),
    (special("device.png", tarfile.CHRTYPE), "device.png", "is a device"),
    (special("disk.png", tarfile.BLKTYPE), "disk.png", "is a device"),
    (special("pipe.png", tarfile.FIFOTYPE), "pipe.png", "is a pipe"),
    (("good.png", png(5)), "good.png", "the second entry of this name"),
    (("./good.png", png(6)), "good.png", "the second entry of this name"),
    (("page.png", b"<html>"), "page.png", "not a PNG, JPEG or TIFF image"),
    (("nothing.png", b""), "nothing.png", "empty file"),
    (("cut.png", png(1)[:-40]), "cut.png", "truncated or corrupt: the PNG ends early"),
]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(("member", "name", "reason"), HARMFUL, ids=[f"{h[1]} {h[2]}" for h in HARMFUL])
def test_a_harmful_entry_is_quarantined_by_name_and_the_rest_is_kept(
    work: Path, compress: Any, member: Any, name: str, reason: str
) -> None:
    (work / "secret.png").write_bytes(png(77))
    members = [("good.png", png(0)), member, ("last.png", png(9))]
    (work / "raw/s/a.tar").write_bytes(compress(tarred(members)))
    before = digest(work / "raw")
    assemble(parameters())
    assert quarantined() == {f"a.tar!{name}": reason}
    assert kept() == ["a.tar/good.png", "a.tar/last.png"]
    assert digest(work / "raw") == before
    assert {path.name for path in work.iterdir()} == {"raw", "data", ".gfm", "secret.png"}


def test_an_image_under_another_image_s_suffix_is_read_as_what_it_is(work: Path) -> None:
    packed(work / "raw/s/a.tar", {"a.jpg": png(1), "b.png": geotiff(2)})
    assemble(parameters())
    assert kept() == ["a.tar/a.jpg", "a.tar/b.png"]
    assert stored()["s/a.tar/a.jpg"] == png(1)
    assert quarantined() == {}


def test_archives_in_archives_are_counted_not_read(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = tarred([("x.png", png(1))])
    packed(work / "raw/s/a.tar", {"in.tar": inner, "in.zip": inner, "a.png": png(2), "._a.png": b"mac"})
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert summary()["ignored"] == {"archives in archives": 2, "other files": 1}
    assert "s: in its archives 2 archives in archives, 1 other files" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [None, 3])
def test_a_source_whose_archives_hold_no_image_is_one_error_that_names_it(work: Path, limit: int | None) -> None:
    packed(work / "raw/s/a.tar", {"notes.txt": b"x"})
    packed(work / "raw/s/b.zip", {})
    with pytest.raises(
        DataError, match=r"geopile\.sources\.s: no image in the archives below raw/s \(a\.tar: holds no"
    ):
        assemble(parameters(limit=limit))
    assert not COLLECTION.exists()


def test_one_archive_without_an_image_among_others_is_quarantined(work: Path) -> None:
    packed(work / "raw/s/a.zip", {})
    packed(work / "raw/s/b.zip", {"a.png": png(1)})
    assemble(parameters())
    assert quarantined() == {"a.zip": "holds no image"}


def test_a_folder_without_archives_is_named(work: Path) -> None:
    (work / "raw/s/a.png").write_bytes(png(1))
    for image_format in ("archive", "webdataset"):
        with pytest.raises(DataError, match=r"geopile\.sources\.s: folder raw/s holds no file that matches .*\.tar"):
            assemble(parameters(format=image_format))


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.tar.zst", "a.zip"])
def test_an_entry_above_the_limit_is_refused_before_it_is_read(
    work: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("gfm.geopile.archives.entry.MAX_FILE_BYTES", 100_000)
    packed(work / "raw/s" / kind, {"a.png": png(1), "bomb.png": bytes(100_001), "z.png": png(2)})
    assemble(parameters())
    assert kept() == [f"{kind}/a.png", f"{kind}/z.png"]
    assert quarantined() == {f"{kind}!bomb.png": "is 100,001 bytes, more than 100,000"}


def test_a_tar_that_declares_far_more_than_it_holds_costs_no_memory(work: Path) -> None:
    bomb = tarfile.TarInfo("bomb.png")
    bomb.size = 1 << 60
    data = tarred([("a.png", png(1))])[: 512 + -(-len(png(1)) // 512) * 512] + bomb.tobuf(tarfile.GNU_FORMAT)
    (work / "raw/s/a.tar").write_bytes(data)
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert quarantined() == {
        "a.tar": "truncated: ends inside its last file",
        "a.tar!bomb.png": f"is {1 << 60:,} bytes, more than {1 << 29:,}",
    }


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_declares_a_huge_name_ends_the_archive(work: Path, kind: bytes) -> None:
    header = special("x", kind)
    header.size = 1 << 40
    start = tarred([("a.png", png(1))])[: 512 + -(-len(png(1)) // 512) * 512]
    (work / "raw/s/a.tar").write_bytes(start + header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert quarantined() == {"a.tar": "cut or damaged after a.png"}


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_are_read_in_every_layout_of_tar(work: Path, layout: int) -> None:
    names = ["ü/名.png", "/".join(["folder" * 8] * 4) + "/a.png"]
    data = tarred([(name, png(number)) for number, name in enumerate(names)], format=layout)
    (work / "raw/s/a.tar").write_bytes(data)
    assemble(parameters())
    assert sorted(kept()) == sorted(f"a.tar/{name}" for name in names)


def test_a_sparse_file_is_refused_and_what_follows_is_read(work: Path) -> None:
    sparse = tarfile.TarInfo("holes.png")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # its map goes on in a block of its own
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (work / "raw/s/a.tar").write_bytes(bytes(header) + bytes(512) + b"x" * 512 + tarred([("a.png", png(1))]))
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert quarantined() == {"a.tar!holes.png": "is a sparse file"}


def test_a_sparse_file_in_the_pax_layout_is_refused(work: Path) -> None:
    sparse = tarfile.TarInfo("GNUSparseFile.0/holes.png")
    sparse.size, sparse.pax_headers = 512, {"GNU.sparse.major": "1", "GNU.sparse.name": "holes.png", "mtime": "1.5"}
    data = sparse.tobuf(tarfile.PAX_FORMAT) + b"x" * 512 + tarred([("a.png", png(1))])
    (work / "raw/s/a.tar").write_bytes(data)
    assemble(parameters())
    assert kept() == ["a.tar/a.png"]
    assert quarantined() == {"a.tar!GNUSparseFile.0/holes.png": "is a sparse file"}


def test_a_disk_that_fails_inside_an_archive_is_a_reason(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(work / "raw/s/a.tar", {"a.png": png(1), "b.png": png(2)})
    take = _Forward.take

    def failing(stream: _Forward, size: int) -> bytes:
        if stream.passed > 0.4:
            raise OSError(errno.EIO, "Input/output error")
        return take(stream, size)

    monkeypatch.setattr(_Forward, "take", failing)
    packed(work / "raw/s/c.zip", {"c.png": png(3)})
    assemble(parameters())
    assert quarantined() == {"a.tar": "not readable: input/output error"}
    assert kept()[-1] == "c.zip/c.png"


def test_a_zip_bomb_that_hides_its_size_is_refused(work: Path) -> None:
    path = work / "raw/s/a.zip"
    packed(path, {"bomb.png": png(0) + bytes(5_000_000), "good.png": png(1)})
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(magic) + at, 3000)
    path.write_bytes(data)
    assemble(parameters())
    assert kept() == ["a.zip/good.png"]
    assert quarantined() == {"a.zip!bomb.png": "truncated or corrupt inside its archive"}


def test_zip_entries_that_are_encrypted_links_duplicates_or_of_rare_methods_are_quarantined(work: Path) -> None:
    path = work / "raw/s/a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("locked.png", png(1))
        archive.writestr("good.png", png(2))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("good.png", png(3))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/secret.png")
        archive.writestr("rare.png", png(4), zipfile.ZIP_LZMA)
        archive.writestr("../up.png", png(5))
        archive.writestr("flipped.png", png(6))
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1  # what marks an entry as encrypted
    data[data.rindex(png(6)) + 100] ^= 1
    path.write_bytes(data)
    assemble(parameters())
    assert stored() == {"s/a.zip/good.png": png(2)}
    assert quarantined() == {
        "a.zip!locked.png": "is encrypted",
        "a.zip!good.png": "the second entry of this name",
        "a.zip!link.png": "is a link",
        "a.zip!rare.png": "is compressed by a method other than deflate (14)",
        "a.zip!../up.png": "its name leads out of the archive",
        "a.zip!flipped.png": "truncated or corrupt inside its archive",
    }


def test_zip_names_are_utf_8_with_or_without_the_mark_and_others_are_quarantined(work: Path) -> None:
    path = work / "raw/s/a.zip"
    packed(path, {"ü.png": png(1), "XX.png": png(2), "YY.png": png(3)})
    data = path.read_bytes().replace(b"XX.png", "ä.png".encode()).replace(b"YY.png", b"\xff\xfe.png")
    path.write_bytes(data)
    assemble(parameters())
    assert sorted(kept()) == ["a.zip/ä.png", "a.zip/ü.png"]
    assert quarantined() == {"a.zip!\\udcff\\udcfe.png": "its name is not valid UTF-8"}


def test_a_picture_that_unfolds_to_too_many_pixels_is_refused(work: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = bytearray(png(1))
    bomb[12:33] = head + struct.pack(">I", zlib.crc32(head))
    packed(work / "raw/s/a.tar", {"bomb.png": bytes(bomb), "good.png": png(2)})
    assemble(parameters())
    assert quarantined()["a.tar!bomb.png"].startswith("has 100000x100000 px, more than")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["a.tar", "a.tar.gz", "a.tar.zst", "a.zip"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    end=st.floats(0, 1),
)
def test_whatever_is_damaged_entries_end_or_raise_one_named_error(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], end: float
) -> None:
    path = tmp_path / kind
    packed(path, {f"{'long' * 30}/{number}.png": png(number)[:900] for number in range(4)})
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(data[: int(end * len(data)) or 1])
    try:
        for entry in entries(path, io.BytesIO(path.read_bytes())):
            if not entry.reason:
                try:
                    assert len(entry.read()) <= 1 << 20
                except ImageError as error:
                    assert str(error).startswith(str(path))
    except ImageError as error:
        assert error.path == path


def test_what_a_reader_skips_stays_in_step(work: Path) -> None:
    names = [f"{number}.png" for number in range(5)]
    packed(work / "raw/s/a.tar.gz", {name: png(number) for number, name in enumerate(names)})
    path = work / "raw/s/a.tar.gz"
    with path.open("rb") as file:
        found = {entry.name: entry.read() for entry in entries(path, file) if entry.name in names[1::2]}
    assert found == {"1.png": png(1), "3.png": png(3)}
    assert np.array_equal(decode_image(found["1.png"], "1.png"), picture(1))
