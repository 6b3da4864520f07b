"""The embedded sample: the same bytes everywhere, nobody's files overwritten, pictures that readers can read."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xxhash
from PIL import Image

from gfm.errors import DataError
from gfm.sample import sources, tasks
from gfm.sample.encode import Grid, png, tiff
from gfm.sample.sources import File, Job
from gfm.sample.write import MARKER, write_sample

# Recorded: a change means that everyone's quickstart numbers change. Raise write.VERSION with it.
PART_HASH = "1ae61e559968901a1723525ad24958c4"
WHOLE_HASH = "6b3970bebfde4f0b4b3dbccdea266aff"


def digest(files: list[File]) -> str:
    found = xxhash.xxh3_128()
    for path, content in sorted(files):
        found.update(path.encode() + b"\0" + content)
    return found.hexdigest()


def tree(folder: Path) -> list[File]:
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


def few_jobs() -> list[Job]:
    """A little of every format: JPEG with labels, TIFF, masks, cities, patches, the leaks and the defects."""
    source, task = sources.jobs(), tasks.jobs()
    chosen = ("class_folder", "whu", "city", "patch", "leaks", "defects")
    names = [getattr(job, "func", job).__name__ for job in [*source, *task]]
    return [([*source, *task])[names.index(name)] for name in chosen]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sample of three small jobs, for tests of writing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "jobs", lambda: [sources.defects])
    monkeypatch.setattr(tasks, "jobs", lambda: [tasks.leaks, tasks.jobs_of_one_patch])
    monkeypatch.setattr(tasks, "jobs_of_one_patch", one_patch, raising=False)


def one_patch() -> list[File]:
    return tasks.patch(0)


def test_the_drawn_bytes_do_not_drift() -> None:
    assert digest([file for job in few_jobs() for file in job()]) == PART_HASH


@pytest.mark.slow
def test_the_whole_sample_is_the_same_in_another_process_without_simd(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from gfm.sample.write import write_sample; write_sample(Path('raw'))"
    environment = {**os.environ, "JSIMD_FORCENONE": "1", "PYTHONHASHSEED": "7", "NPY_DISABLE_CPU_FEATURES": "AVX2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, check=True)
    files = tree(tmp_path / "raw")
    assert digest(files) == WHOLE_HASH
    images = [
        path for path, _ in files if path.split("/")[0] in {"RSD46-WHU", "NWPU-RESISC45", "PatternNet", "MLRSNet"}
    ]
    assert 850 < len(images) < 1000


def test_a_second_run_touches_nothing(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample(Path("raw"))
    before = {path: path.stat().st_mtime_ns for path in Path("raw").rglob("*")}
    write_sample(Path("raw"))
    assert {path: path.stat().st_mtime_ns for path in Path("raw").rglob("*")} == before
    assert "the sample is complete" in capsys.readouterr().out


def test_a_damaged_sample_is_written_again(few: None) -> None:
    write_sample(Path("raw"))
    whole = digest(tree(Path("raw")))
    (Path("raw") / "BigEarthNet-v2/sample_0/B04.tif").write_bytes(b"short")
    write_sample(Path("raw"))
    assert digest(tree(Path("raw"))) == whole


def test_a_folder_of_ones_own_imagery_is_never_overwritten(few: None) -> None:
    mine = Path("raw/mine.tif")
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(DataError, match=r"raw: holds files that are not the sample's"):
        write_sample(Path("raw"))
    assert mine.read_bytes() == b"precious"


def test_own_files_added_to_the_sample_are_never_deleted(few: None) -> None:
    write_sample(Path("raw"))
    (Path("raw") / "BigEarthNet-v2/sample_0/B04.tif").unlink()
    (Path("raw") / "mine.tif").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"mine\.tif"):
        write_sample(Path("raw"))
    assert (Path("raw") / "mine.tif").read_bytes() == b"precious"


def test_a_run_that_is_cut_off_leaves_no_half_sample(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> list[File]:
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "leaks", breaks)
    monkeypatch.setattr("gfm.sample.write._do", lambda job: job())
    monkeypatch.setattr("gfm.sample.write._files", lambda: iter([("a", b"1"), *breaks()]))
    with pytest.raises(KeyboardInterrupt):
        write_sample(Path("raw"))
    assert not Path("raw").exists()


def test_the_licence_and_every_size_are_stated(few: None) -> None:
    write_sample(Path("raw"))
    assert "Apache-2.0" in Path("raw/README.md").read_text()
    assert "no picture shows a real place" in Path("raw/README.md").read_text()
    sizes = json.loads((Path("raw") / MARKER).read_text())["files"]
    assert set(sizes) == {path for path, _ in tree(Path("raw"))} - {MARKER}


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (8, np.uint16)]
)
def test_tiffs_are_read_back_with_their_place_on_earth(tmp_path: Path, bands: int, dtype: type[np.uint8]) -> None:
    pixels = np.arange(7 * 5 * bands).reshape(7, 5, bands).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff(pixels, Grid(32631, 400_020, 5_400_000, 10), nodata=0))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (file.crs.to_epsg(), file.transform[:6], file.nodata) == (32631, (10, 0, 400_020, 0, -10, 5_400_000), 0)
        assert np.array_equal(file.read().transpose(1, 2, 0), pixels)
        assert "TIFFTAG_DATETIME" not in file.tags()
        assert "TIFFTAG_SOFTWARE" not in file.tags()


def test_masks_are_read_back() -> None:
    mask = (np.arange(300 * 301).reshape(300, 301) % 7 == 0).astype(np.uint8) * 255  # longer than one deflate block
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(mask)))), mask)


def test_leaked_pictures_are_mirrored_copies_of_test_scenes() -> None:
    scenes = dict(tasks.uc_merced("harbor"))
    copy = np.asarray(Image.open(io.BytesIO(tasks.leaks()[0][1]))).astype(int)
    original = np.asarray(Image.open(io.BytesIO(scenes["UCMerced_LandUse/Images/harbor/harbor04.tif"]))).astype(int)
    assert np.abs(copy[:, ::-1] - original).mean() < 8
    assert np.abs(copy - original).mean() > 20


def test_defects_are_what_the_quarantine_must_catch() -> None:
    cut, empty, grey = tasks_of_defects()
    assert empty == b""
    assert Image.open(io.BytesIO(grey)).mode == "L"
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(cut)).load()


def tasks_of_defects() -> list[bytes]:
    return [content for _, content in sources.defects()]


def test_a_city_changes_only_where_its_mask_says() -> None:
    files = dict(tasks.city("vega"))
    mask = np.asarray(Image.open(io.BytesIO(files["OSCD/train_labels/vega/cm/cm.png"]))) > 0
    dates = []
    for number in (1, 2):
        name = next(name for name in files if f"imgs_{number}/" in name and name.endswith("B04.tif"))
        with rasterio.MemoryFile(files[name]) as memory, memory.open() as file:
            dates.append(file.read(1).astype(float))
    difference = np.abs(dates[1] / dates[1].mean() - dates[0] / dates[0].mean())
    assert 0.01 < mask.mean() < 0.15
    assert difference[mask].mean() > 3 * difference[~mask].mean()


def test_labels_of_a_class_are_a_table_of_zeros_and_ones() -> None:
    files = dict(sources.class_folder(sources.MLRSNET, "beach"))
    rows = list(csv.DictReader(io.StringIO(files["MLRSNet/Labels/beach.csv"].decode())))
    assert len(rows) == sources.MLRSNET.images
    assert all(row["sand"] == row["sea"] == "1" and row["ship"] == "0" for row in rows)
    assert all(f"MLRSNet/Images/beach/{row['image']}" in files for row in rows)
