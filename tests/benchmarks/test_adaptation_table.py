"""`python benchmarks/adaptation_table.py`: modes side by side, and no more said of differences than seeds allow."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from gfm.params import Params

ROOT = Path(__file__).parents[2]
SCORES = {"random": (0.1, 0.2, 0.1), "teacher": (0.3, 0.5, 0.4), "gfm": (0.4, 0.6, 0.5)}


@pytest.fixture
def table() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("adaptation_table")
    for name in ("adaptation_table", "quality_table", "quality_plan"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "configs/adaptation.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def workspace(tmp_path: Path, config: dict[str, Any]) -> Path:
    """The fine-tunings of configs/adaptation.yaml, with made scores."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for model in config["models"]:
        _write(tmp_path / "models/encoders" / model / "run.json", {"seconds": 1.0, "energy": None})
    for task, described in config["tasks"].items():
        for model, scores in SCORES.items():
            folder = tmp_path / "models/tasks" / task / model
            metric = "f1" if described["kind"] == "change" else "iou"
            record = {"primary_metric": metric, "mode": described["finetune"]["mode"], "trained_parameters": 60_000}
            spent = {"seconds": 30.0, "kwh": 0.003, "kg_co2eq": 0.0012}
            _write(folder / "run.json", record | {"trained_share": 0.025, "energy": spent})
            rows = [(model, task, metric, score, seed, "test") for seed, score in enumerate(scores)]
            columns = ["model", "task", "metric", "score", "seed", "split"]
            pd.DataFrame(rows, columns=columns).to_csv(folder / "scores.csv", index=False)
            noise = np.random.default_rng(0).integers(0, 256, (200, 1200, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "predictions.png")
    return tmp_path


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_every_model_and_mode_has_the_same_steps_and_seeds(config):
    params = Params.model_validate(config)
    budgets = {
        (task.finetune.epochs, task.finetune.max_steps_per_epoch, task.finetune.batch_size, *task.finetune.seeds)
        for task in params.tasks.values()
    }
    assert len(budgets) == 1
    assert {task.finetune.mode for task in params.tasks.values()} == {"full", "frozen", "lora"}


def test_scores_costs_and_paired_differences_of_every_mode_are_told(table, workspace, capsys):
    assert table.main([str(workspace), "--differences", "gfm", "teacher", "teacher", "random"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("###")] == ["### buildings, iou", "### oscd, f1"]
    scored = next(line for line in lines if line.startswith("| frozen | `teacher` |"))
    assert scored == "| frozen | `teacher` | 0.400 | 0.100 | 0.300 to 0.500 | 60,000 | 2.5% | 10 | 0.000369 |"
    # The spread between seeds is the same for both models, and cancels.
    gained = next(line for line in lines if line.startswith("| lora | `gfm` - `teacher` |"))
    assert "+0.100, +0.100, +0.100 | +0.100 | +0.100 to +0.100 |" in gained and gained.endswith("| better |")
    # By the bootstrap alone (+0.200 to +0.300) three seeds would always look sure.
    other = next(line for line in lines if line.startswith("| full | `teacher` - `random` |"))
    assert "+0.200 to +0.300 | +0.123 to +0.410 | better" in other


def test_there_is_a_picture_of_one_model_for_every_mode(table, workspace, tmp_path):
    assert table.main([str(workspace), "--pictures", str(tmp_path / "out"), "--of", "gfm"]) == 0
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    tasks = ("buildings", "buildings-frozen", "buildings-lora", "oscd", "oscd-frozen", "oscd-lora")
    assert names == {f"adaptation-{task}" for task in tasks}
    stored = workspace / "models/tasks/oscd/gfm/predictions.png"
    copied = tmp_path / "out/adaptation-oscd.png"
    assert Image.open(copied).size == Image.open(stored).size and copied.stat().st_size < stored.stat().st_size


@pytest.mark.parametrize("wrong", [["--differences", "gfm"], ["--differences", "gfm", "clay"]])
def test_a_pair_that_is_none_is_refused(table, workspace, capsys, wrong):
    assert table.main([str(workspace), *wrong]) == 2
    assert "takes pairs of random, teacher, gfm" in capsys.readouterr().err


def test_a_missing_run_is_named_with_the_command_that_makes_it(table, workspace, capsys):
    (workspace / "models/tasks/oscd-lora/gfm/run.json").unlink()
    assert table.main([str(workspace)]) == 2
    assert "dvc repro finetune@oscd-lora-gfm" in capsys.readouterr().err


def test_a_workspace_without_variants_is_told_how_to_declare_them(table, workspace, config, capsys):
    first = {name: task for name, task in config["tasks"].items() if "variant_of" not in task}
    (workspace / "params.yaml").write_text(yaml.safe_dump(config | {"tasks": first}), encoding="utf-8")
    assert table.main([str(workspace)]) == 2
    assert "declare the modes with variant_of" in capsys.readouterr().err
