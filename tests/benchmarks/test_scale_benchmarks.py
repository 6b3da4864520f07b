"""The benchmarks of the collection run as a command does, and their ratios say what they are said to say."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODULES = ("assemble", "interleaved", "loader", "made_collection", "made_images", "stage_memory", "storage")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The modules of the benchmarks, importable as they are for the commands, and gone again afterwards."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_ratio_above_one_is_faster_and_its_range_is_over_rounds() -> None:
    interleaved = importlib.import_module("interleaved")
    first = interleaved.Way("first", lambda: 0, images=100, cpu_s=[1.0, 2.0, 4.0], wall_s=[1.0, 2.0, 4.0])
    other = interleaved.Way("other", lambda: 0, images=200, cpu_s=[1.0, 1.0, 1.0], wall_s=[2.0, 2.0, 2.0])
    one, two = interleaved.summary([first, other])
    assert one["ratio"] == [1, 1, 1] and one["per_cpu_s"] == 50
    assert two["ratio"] == [4, 2, 8] and (two["per_cpu_s"], two["per_wall_s"]) == (200, 100)
    assert "| other | 200 | 100 | 4.00 | 2.00-8.00 |" in interleaved.table("x", [one, two])


def test_made_pictures_differ_in_looks() -> None:
    made_images = importlib.import_module("made_images")
    from gfm.imagery.hashing import dhash, hamming

    looks = [dhash(made_images.picture(seed, 64)) for seed in range(30)]
    assert min(hamming(a, b) for n, a in enumerate(looks) for b in looks[:n]) > 3
    assert made_images.picture(0, 64, 4).shape == (64, 64, 4)
    assert not np.array_equal(made_images.picture(0, 64), made_images.picture(1, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("assemble", ["--images", "16"], {"class folders, 256 px JPEG": 5, "4-band scenes, 256 px tiles": 4}),
        ("loader", ["--images", "8", "--px", "64"], {"64": 9}),
        ("storage", ["--images", "20", "--px", "64"], {"at random": 4, "in order": 5}),
    ],
)
def test_a_benchmark_prints_its_table_and_writes_its_numbers(
    name: str,
    options: list[str],
    rows: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "storage":
        pytest.importorskip("lmdb")
        pytest.importorskip("webdataset")
    monkeypatch.setattr(sys, "argv", [name, *options, "--rounds", "1", "--json", "found.json"])
    importlib.import_module(name).main()
    found = json.loads(Path("found.json").read_text())
    assert {title: len(found[title]) for title in rows} == rows
    assert "| images/s of a core |" in capsys.readouterr().out


def test_a_generated_manifest_is_one_that_the_stages_take(capsys: pytest.CaptureFixture[str]) -> None:
    stage_memory = importlib.import_module("stage_memory")
    stage_memory.write_manifest(200)
    for stage in ("split", "rows"):
        stage_memory.run_stage(stage)
        measured = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert measured["peak_mb"] >= measured["start_mb"] > 0
