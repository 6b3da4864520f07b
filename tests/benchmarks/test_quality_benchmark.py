"""`python benchmarks/quality.py`: every recipe gets the same budget, and a table claims no more than its intervals."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gfm.evaluation.bootstrap import Interval
from gfm.params import Params

ROOT = Path(__file__).parents[2]
MODULES = ("quality", "quality_plan", "quality_table")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of the benchmark, importable as they are for the command, and gone again afterwards."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def plan() -> ModuleType:
    return importlib.import_module("quality_plan")


@pytest.fixture
def table() -> ModuleType:
    return importlib.import_module("quality_table")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "configs/quality.yaml").read_text(encoding="utf-8")))


def test_every_run_is_its_recipe_with_a_seed_and_epochs_of_its_own(plan, config):
    runs = plan.same_samples(list(config["pretrain"]), [0, 5], epochs=7)
    params = Params.model_validate(plan.parameters(config, runs, [0, 5]))
    assert len(params.pretrain) == 2 * len(config["pretrain"])
    own = params.pretrain["gfm-fast-1-crop-samples-5"]
    assert (own.recipe, own.seed, own.epochs, own.cached_crops) == ("gfm-fast", 5, 7, 1)
    assert params.pretrain["gfm-samples-0"].seed == 0
    assert all(task.finetune.seeds == [0, 5] for task in params.tasks.values())
    assert params.models == ["random", *params.pretrain]


def test_recipes_differ_in_what_they_are_named_for_alone(config):
    runs = Params.model_validate(config).pretrain
    others = {"recipe", "cached_crops", "masking"}
    assert [runs[name].masking.ratio for name in ("gfm", "gfm-fast", "gfm-fast-4-visible", "simmim")] == [
        *(0.6, 0.6),
        *(0.75, 0.6),
    ]
    reference = runs["gfm"].model_dump(exclude=others)
    for run in runs.values():
        assert {key: value for key, value in run.model_dump().items() if key in reference} == {
            key: value for key, value in reference.items() if key in type(run).model_fields
        }


def test_no_window_is_resized_between_pretraining_and_tasks(config):
    params = Params.model_validate(config)
    px = params.student.architecture.image_px
    assert px == 128 and all(task.image_px == px for task in params.tasks.values())


def test_seeds_come_one_after_the_other_so_that_a_slower_hour_meets_all_recipes(plan):
    runs = plan.same_samples(["gfm", "simmim"], [0, 1], epochs=3)
    assert [(run.recipe, run.seed) for run in runs] == [("gfm", 0), ("simmim", 0), ("gfm", 1), ("simmim", 1)]


def test_the_same_wall_clock_counts_what_a_cache_costs(plan):
    gfm = plan.Cost(epochs=10, seconds=105.0, samples=1000, rate=10.0)  # 10 s an epoch
    fast = plan.Cost(epochs=10, seconds=65.0, samples=1000, rate=40.0, cached_crops=8)  # 2.5 s an epoch, 40 s before
    runs = plan.same_time(["gfm", "gfm-fast"], [0, 1], {"gfm": [gfm, gfm], "gfm-fast": [fast, fast]})
    assert [(run.recipe, run.seed, run.epochs) for run in runs] == [("gfm-fast", 0, 26), ("gfm-fast", 1, 26)]
    assert [run.name for run in runs] == ["gfm-fast-time-0", "gfm-fast-time-1"]


def test_a_longer_training_caches_more_crops_where_the_first_had_too_few_epochs_for_all(plan):
    gfm = plan.Cost(epochs=2, seconds=101.0, samples=1000, rate=10.0)
    fast = plan.Cost(epochs=2, seconds=31.0, samples=200, rate=20.0, cached_crops=4)  # 5 s an epoch, 10 s a crop
    (run,) = plan.same_time(["gfm-fast"], [0], {"gfm": [gfm], "gfm-fast": [fast]})
    assert run.epochs == 12  # 1 s to start, 40 s for 4 crops, 60 s of steps


@given(st.integers(2, 40), st.floats(1, 50), st.floats(0, 30), st.floats(60, 900))
def test_a_recipe_trained_for_the_same_wall_clock_ends_within_half_an_epoch_of_it(epochs, epoch_s, fixed, aim):
    plan = importlib.import_module("quality_plan")
    rate = 100 / epoch_s
    own = plan.Cost(epochs, fixed + epochs * epoch_s, 100 * epochs, rate)
    reference = plan.Cost(4, aim, 400, 1e6)
    (run,) = plan.same_time(["other"], [0], {"gfm": [reference], "other": [own]})
    ends = fixed + run.epochs * epoch_s
    assert abs(ends - aim) <= epoch_s / 2 + 1e-6 or run.epochs == 2


def test_intervals_over_three_seeds_are_students(table):
    found = table.t_interval([1.0, 2.0, 3.0], 0.95)
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)
    assert table.t_interval([1.0], 0.95) is None


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (None, "one seed, nothing shown"),
        (Interval(-0.9, 0.8), "equal within 1"),
        (Interval(0.2, 0.8), "equal within 1"),
        (Interval(-1.1, 0.8), "no difference shown"),
        (Interval(-9.0, 9.0), "no difference shown"),
        (Interval(0.1, 1.1), "better"),
        (Interval(-7.0, -0.1), "worse"),
    ],
)
def test_equality_is_said_only_where_the_whole_interval_lies_within_the_margin(table, interval, said):
    assert table.verdict(interval, 1.0) == said


@given(st.floats(-50, 50), st.floats(0, 50), st.floats(0.1, 5))
def test_a_verdict_never_says_more_than_its_interval(low, width, margin):
    table = importlib.import_module("quality_table")
    said = table.verdict(Interval(low, low + width), margin)
    assert (said == f"equal within {margin:g}") == (-margin <= low and low + width <= margin)
    assert said not in ("better", "worse") or not low <= 0 <= low + width


def trained(table: ModuleType, recipe: str, seed: int, one: float, two: float, **more: Any) -> Any:
    values = {"budgets": ("samples",), "epochs": 4, "seconds": 60.0, "samples": 400, "kwh": 1e-3} | more
    return table.Trained(recipe=recipe, seed=seed, scores={"one": one, "two": two}, **values)


def test_differences_are_paired_by_seed_and_budget(table):
    both = ("samples", "time")
    gfm = [trained(table, "gfm", seed, 50 + 10 * seed, 70, budgets=both) for seed in (0, 1, 2)]
    near = [trained(table, "gfm-fast", seed, 50.5 + 10 * seed, 60 - seed) for seed in (0, 1, 2)]
    slow = [trained(table, "gfm-fast", seed, 40 + 10 * seed, 70, budgets=("time",)) for seed in (0, 1, 2)]
    lines = table.summarise([*gfm, *near, *slow], margin=1.0, confidence=0.95)
    found = {(line.budget, line.recipe, line.task): line for line in lines}
    one = found["samples", "gfm-fast", "one"]
    assert one.difference == pytest.approx(0.5) and one.verdict == "equal within 1"
    assert one.interval.half > 20, "scores move with the seed, differences do not"
    two = found["samples", "gfm-fast", "two"]
    assert two.difference == pytest.approx(-11) and two.verdict == "worse"
    assert found["samples", "gfm-fast", "all tasks"].difference == pytest.approx((0.5 - 11) / 2)
    assert found["time", "gfm-fast", "one"].difference == pytest.approx(-10)
    assert found["time", "gfm", "one"].verdict == "the reference"


def test_a_benchmark_that_was_stopped_compares_only_seeds_that_both_have(table):
    runs = [trained(table, "gfm", 0, 50, 70), trained(table, "simmim", 0, 51, 71), trained(table, "simmim", 1, 99, 99)]
    lines = table.summarise(runs, margin=1.0, confidence=0.95)
    (one,) = [line for line in lines if (line.recipe, line.task) == ("simmim", "one")]
    assert one.difference == pytest.approx(1) and one.verdict == "one seed, nothing shown"


def test_the_table_shows_costs_scores_and_verdicts(table):
    both = ("samples", "time")
    runs = [trained(table, "gfm", seed, 50 + seed, 70, budgets=both) for seed in (0, 1)]
    runs += [trained(table, "distill", seed, 50 + seed, 70, seconds=30.0 + seed, kwh=None) for seed in (0, 1)]
    runs += [trained(table, "random", s, 20, 30, budgets=both, epochs=0, seconds=0.0, samples=0) for s in (0, 1)]
    lines = table.summarise(runs, margin=1.0, confidence=0.95)
    text = table.markdown(runs, lines, margin=1.0, confidence=0.95)
    assert "| `gfm` | 2 | 4 | 400 | 60 | 60-60 | 1.00 | 50.5 ± 6.4 | 70.0 ± 0.0 |" in text
    assert "| `distill` | 2 | 4 | 400 | 30 | 30-31 | not measured |" in text
    assert "| `random` | 2 | 0 | 0 | 0 |  | 0 | 20.0 ± 0.0 |" in text
    assert "| `distill` | two | +0.0 | +0.0 to +0.0 | equal within 1 |" in text
    assert text.count("## ") == 2 and "## The same wall clock" in text
    assert "of the 9 below, about 0.5 would" in text


class Product:
    """Stands for the trainings, which take minutes: writes what the benchmark reads of them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def pretrain(self, params: Params, name: str) -> None:
        self.made.append(name)
        run = params.pretrain[name]
        samples = 100 * run.epochs
        rate = 20.0 if run.recipe == "gfm-fast" else 10.0
        record = {
            "seconds": samples / rate + 1,
            "samples": samples,
            "metrics": {"samples_per_s": rate},
            "energy": {"kwh": None, "method": "not measured"},
            "provenance": {
                "commit": "abc",
                "dirty": False,
                "hardware": {"cores": 4, "gpu": []},
                **dict.fromkeys(("python", "torch", "timm", "lightning"), "1"),
                "data": {"manifest": "f00"},
            },
        }
        folder = Path("models/encoders", name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record))

    def finetune(self, params: Params, task: str, model: str) -> None:
        self.made.append(f"{task}/{model}")
        folder = Path("models/tasks", task, model)
        folder.mkdir(parents=True)
        rows = [f"{model},{task},iou,{0.4 + 0.01 * seed},{seed},test" for seed in params.tasks[task].finetune.seeds]
        (folder / "scores.csv").write_text("\n".join(["model,task,metric,score,seed,split", *rows]) + "\n")
        (folder / "run.json").write_text(json.dumps({"primary_metric": "iou"}))


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> Product:
    made, command = Product(), importlib.import_module("quality")
    monkeypatch.setattr(command, "pretrain", made.pretrain)
    monkeypatch.setattr(command, "finetune", made.finetune)
    monkeypatch.setattr(command, "STAGES", {})
    monkeypatch.chdir(ROOT)  # the command changes the folder
    return made


def command(tmp_path: Path, *more: str) -> int:
    few = ("--seeds", "3", "4", "--recipes", "gfm", "gfm-fast", "--minutes-per-run", "0.5")
    return int(importlib.import_module("quality").main([*few, "--workspace", f"{tmp_path / 'w'}", *map(str, more)]))


def test_the_command_trains_all_for_both_budgets_and_writes_the_table(tmp_path, product, capsys):
    assert command(tmp_path, "--json", f"{tmp_path / 'q.json'}", "--markdown", f"{tmp_path / 'q.md'}") == 0
    trainings = [name for name in product.made if "/" not in name]
    assert trainings == [
        "gfm-calibration-0",
        *("gfm-samples-3", "gfm-fast-samples-3", "gfm-samples-4", "gfm-fast-samples-4"),
        *("gfm-fast-time-3", "gfm-fast-time-4"),
    ]
    numbers = json.loads((tmp_path / "q.json").read_text())
    epochs = {(run["recipe"], run["budgets"][0]): run["epochs"] for run in numbers["runs"]}
    assert epochs["gfm", "samples"] == epochs["gfm-fast", "samples"] == 3  # 0.5 minutes at 10 s an epoch
    assert epochs["gfm-fast", "time"] == 6
    text = (tmp_path / "q.md").read_text()
    assert text in capsys.readouterr().out and "| `random` | 2 |" in text
    assert sorted((run["recipe"], run["seed"]) for run in numbers["runs"] if run["recipe"] == "random") == [
        ("random", 3),
        ("random", 4),
    ]


def test_a_stopped_benchmark_goes_on_and_makes_nothing_twice(tmp_path, product, capsys):
    assert command(tmp_path) == 0
    text = (tmp_path / "w/quality.md").read_text()
    product.made.clear()
    shutil.rmtree(tmp_path / "w/models/tasks/buildings/gfm-fast-time-4")
    assert command(tmp_path) == 0
    assert product.made == ["buildings/gfm-fast-time-4"]
    assert (tmp_path / "w/quality.md").read_text() == text


def test_a_workspace_of_other_settings_is_refused_and_so_is_somebodys_folder(tmp_path, product, capsys):
    assert command(tmp_path) == 0
    assert command(tmp_path, "--minutes-per-run", "2") == 2
    assert "begun with other settings" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "w")
    (tmp_path / "w").mkdir()
    (tmp_path / "w/thesis.doc").touch()
    assert command(tmp_path) == 2
    assert "no workspace of this benchmark" in capsys.readouterr().err
