"""The benchmark of the leakage guard plants what it says, on ground drawn by code or cut from a folder."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("shifted")
    for name in ("shifted", "interleaved", "made_images"):
        sys.modules.pop(name, None)


def test_copies_are_caught_by_looks_and_shifted_ones_by_corners_only(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shifted", "--grounds=4", "--px=320", "--rounds=1", "--json=found.json"])
    benchmark.main()
    found = {
        name: [{*map(tuple, pairs)} for pairs in ways]
        for name, ways in json.loads(Path("found.json").read_text()).items()
    }
    own = {(number, number) for number in range(4)}
    assert list(found) == list(benchmark.WAYS)
    assert found["byte for byte"] == [own, own, own]
    looks, _, corners = found["shifted, 75 % in common"]
    assert not looks & own and len(corners & own) >= 3
    printed = capsys.readouterr().out
    assert "| byte for byte | 100 % | 100 % | 100 % | 0, 0, 0 |" in printed
    assert "compared with 4 held-out images" in printed


def test_four_neighbouring_tiles_are_one_square_and_larger_images_several(benchmark: Any, tmp_path: Path) -> None:
    ground = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "tiles").mkdir()
    for column in (0, 1):
        for row in (0, 1):
            tile = ground[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            Image.fromarray(tile).save(tmp_path / f"tiles/a-{10 + column}-{6 + row}-5.png")
    Image.fromarray(ground[:32, :32]).save(tmp_path / "tiles/alone-20-6-5.png")
    Image.fromarray(np.hstack([ground, ground])).save(tmp_path / "wide.png")
    one, other, joined = benchmark.cut(tmp_path, "**/*", 64)
    assert np.array_equal(joined, ground) and np.array_equal(one, ground) and np.array_equal(other, ground)


def test_a_folder_without_two_squares_says_so(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["shifted", "--images", str(tmp_path)])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "holds 0 squares of 512 px; two are needed" in capsys.readouterr().err
