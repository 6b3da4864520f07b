"""`python benchmarks/pretrain.py`: ratios compare like with like, costs add up, and nothing is estimated."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
PHASES = ("data", "teacher", "forward", "backward", "optimiser")
MODULES = ("pretrain", "pretrain_round", "pretrain_table")
SMALL = (
    *("--model", "toy", "--px", "96", "--teacher-px", "64", "--device", "cpu"),
    *("--batch", "2", "--steps", "2", "--warmup", "1", "--workers", "0"),
)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of the benchmark, importable as they are for the command, and gone again afterwards."""
    torch.set_num_threads(1)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def table() -> ModuleType:
    return importlib.import_module("pretrain_table")


@pytest.fixture
def rounds() -> ModuleType:
    return importlib.import_module("pretrain_round")


@pytest.fixture
def command(rounds: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command, its rounds measured in this process, which saves the imports of each."""
    module = importlib.import_module("pretrain")

    def here(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
        before = Path.cwd()
        os.chdir(spec["folder"])
        try:
            return dict(json.loads(json.dumps(rounds.measure(spec))))
        finally:
            os.chdir(before)

    monkeypatch.setattr(module, "run_round", here)
    return module


def test_costs_add_up_and_the_reference_is_one_time_itself(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    rows = "gfm+cached,distill,simmim+ema,gfm-fast,gfm-fast+visible=2,gfm-fast+checkpoint+accumulate=2"
    assert command.main([*SMALL, "--rounds", "1", "--precision", "32-true", "--rows", rows, "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    summary = {line["name"]: line for line in found["summary"]}
    assert list(summary) == ["gfm", *rows.split(",")]

    gfm = summary["gfm"]
    measured = [ratio for ratio in gfm["x_same"].values() if ratio is not None]
    assert measured and all(ratio == [1, 1, 1] for ratio in measured)
    for line in summary.values():
        cost, phases = line["cost"], line["phases_ms"]
        assert sum(phases.values()) == pytest.approx(cost["step_ms"], rel=0.02)
        assert line["x_same"] == line["x_float32"]  # there is only one precision
        assert line["x_same"]["img_per_s"][0] == pytest.approx(cost["img_per_s"] / gfm["cost"]["img_per_s"])
        cached = line["name"] == "gfm+cached" or line["recipe"] == "gfm-fast"
        assert (cost["img_per_s"] < cost["img_per_s_without_cache"]) == cached == (cost["cache_ms_per_image"] > 0)
        assert (phases["teacher"] > 0) == (line["name"] in ("gfm", "distill"))
        assert cost["peak_mb"] > 0
    flops = {name: line["cost"]["gflop"] for name, line in summary.items()}
    teacher = gfm["cost"]["teacher_gflop"]
    assert flops["gfm+cached"] == pytest.approx(flops["gfm"] - teacher + 8 / 100 * teacher, rel=1e-6)
    assert flops["gfm-fast+visible=2"] < flops["gfm-fast"] < flops["gfm-fast+checkpoint+accumulate=2"]

    told = capsys.readouterr().out
    for word in ("img/s", "all in", "x same", "x 32-true", *PHASES, "wait", "MiB", "GFLOP", "J"):
        assert f" {word}" in told
    assert ("not readable" in told) == (found["header"]["energy"] is None)


def test_a_row_that_fails_is_named_and_the_others_are_still_told(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
        if spec["params"]["pretrain"]["row"]["recipe"] == "simmim":
            raise RuntimeError("out of memory")
        return one_round(1.0)

    monkeypatch.setattr(command, "run_round", measured)
    assert command.main([*SMALL, "--rounds", "2", "--precision", "32-true", "--rows", "simmim,distill"]) == 1
    told = capsys.readouterr()
    assert "distill" in told.out and "simmim" not in told.out
    assert told.err.splitlines()[-1] == "simmim 32-true: out of memory"


@pytest.mark.parametrize(
    "wrong", [["--rows", "gfm+fast"], ["--switches", "accumulate"], ["--recipes", "mae"], ["--precision", "8"]]
)
def test_an_unknown_word_is_a_wrong_call(command: ModuleType, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main([*SMALL, *wrong])
    assert stop.value.code == 2


def test_by_default_every_recipe_stands_alone_and_with_each_switch_that_changes_it(command: ModuleType) -> None:
    rows = command.rows_of(command.arguments([*SMALL]))
    told = {(row.name, row.precision) for row in rows}
    assert len(told) == len(rows)
    for precision in ("32-true", "bf16-mixed"):
        assert {(recipe, precision) for recipe in command.RECIPES} <= told
        assert {(f"{recipe}+compile", precision) for recipe in command.RECIPES} <= told
        assert ("gfm-fast+visible=9", precision) in told
    assert not told & {("simmim+cached", "32-true"), ("gfm+visible=9", "32-true"), ("gfm+plain-adamw", "bf16-mixed")}


def one_round(step_s: float, cache_s: float = 0.0) -> dict[str, Any]:
    return {
        "step_s": step_s,
        "phases": dict.fromkeys(PHASES, step_s / 5),
        "cache_s": cache_s,
        "peak_mb": 100.0,
        "before_mb": 50.0,
        "joules": 10 * step_s,
        "cache_joules": 10 * cache_s,
        "gflop": 3.0,
        "teacher_gflop": 1.0,
        "energy": "GPU",
        "threads": 1,
        "device": "cpu",
    }


def test_a_gain_of_the_precision_is_none_of_the_recipe_and_building_the_cache_counts(table: ModuleType) -> None:
    rows = [
        table.Row("gfm", (), "32-true", [one_round(8.0), one_round(16.0)]),
        table.Row("gfm", (), "bf16-mixed", [one_round(4.0), one_round(8.0)]),
        table.Row("gfm-fast", (), "bf16-mixed", [one_round(1.0, 1.0), one_round(2.0, 2.0)]),
    ]
    *_, half, fast = table.summarise(rows, batch=4, cached_crops=25, epochs=100)
    assert half["x_same"]["img_per_s"] == [1, 1, 1]
    assert half["x_float32"]["img_per_s"] == [2, 2, 2]
    assert fast["x_same"]["img_per_s"] == [2, 2, 2]  # 4 times as fast, and as much again for a quarter of a pass
    assert fast["x_float32"]["img_per_s"] == [4, 4, 4]
    assert fast["cost"]["gflop"] == 3.25
    assert fast["cost"]["joules"] == pytest.approx(1.5 * (10 + 0.25 * 10))
    assert "2.00 (aim: 2.5 or more)" in table.aims([fast], on_gpu=False)


@pytest.mark.parametrize("apart", [False, True])
def test_the_clock_counts_whole_steps_and_leaves_the_warm_up_out(
    rounds: ModuleType, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    now = itertools.count()
    ticks = {"seconds": 0.0}
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: ticks["seconds"])
    timer = rounds.StepTimer(warmup=2, steps=3, parts=2, device=torch.device("cpu"), plain_adamw=False)
    timer.apart = apart

    def spend(seconds: float) -> None:
        ticks["seconds"] += seconds * (10 if next(now) < 4 * 2 * 2 else 1)  # the warm-up is slow

    for batch in range(2 * (2 + 3 + (3 if apart else 0))):
        spend(0.002)
        timer.on_train_batch_start(None, None, None, batch)
        spend(0.005)
        timer.on_before_backward(None, None, None)
        spend(0.010)
        timer.on_after_backward(None, None)
        spend(0.003)
        timer.on_train_batch_end(None, None, None, None, batch)
    assert timer.step_s == pytest.approx(0.04)
    expected = {"data": 0.004, "teacher": 0, "forward": 0.01, "backward": 0.02, "optimiser": 0.006}
    assert timer.phases == pytest.approx(expected)


def test_energy_is_what_the_packages_counted_also_past_the_counters_range(
    rounds: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "energy_uj").write_text("9000000\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(rounds, "RAPL", tmp_path)
    counters = rounds.EnergyCounters(torch.device("cpu"))
    before = counters.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")
    assert counters.what == "CPU packages"
    assert counters.joules(before, counters.read()) == 1.5


def test_energy_that_cannot_be_read_is_none(
    rounds: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "RAPL", tmp_path / "none")
    counters = rounds.EnergyCounters(torch.device("cpu"))
    assert counters.what is None
    assert counters.joules(counters.read(), counters.read()) is None


@pytest.mark.slow
def test_it_runs_as_a_user_runs_it() -> None:
    given = [*SMALL, "--rounds", "1", "--precision", "32-true", "--rows", "gfm"]
    done = subprocess.run([sys.executable, str(FOLDER / "pretrain.py"), *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1.00-1.00" in done.stdout
