"""Learning rates and parameter groups, compared with what the published code has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gfm.errors import GfmError
from gfm.models.parity import Row
from gfm.models.schedule_file import SCHEDULE_TOLERANCE, read_schedule_file
from gfm.pretraining.parity import compare_pretraining

FILE = Path(__file__).parents[2] / ".." / "shared" / "parity" / "gfm_reference_schedule.json"
pytestmark = [pytest.mark.field, pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")]


def _changed(folder: Path, **pretrain: Any) -> Path:
    """The stored schedule with some keys of `pretrain` replaced."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    stored["pretrain"] |= pretrain
    path = folder / "schedule.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    return path


def compare_schedule(path: Path) -> list[Row]:
    return compare_pretraining(path, read_schedule_file(path).pretrain)


def _above(path: Path) -> list[str]:
    return [row.quantity for row in compare_schedule(path) if not row.within(SCHEDULE_TOLERANCE)]


def test_every_stored_learning_rate_and_parameter_group_is_ours() -> None:
    found = compare_schedule(FILE)
    assert sum(row.quantity.startswith("learning rate") for row in found) == 12
    assert _above(FILE) == []


def test_a_rate_one_step_late_is_seen(tmp_path: Path) -> None:
    rates = json.loads(FILE.read_text(encoding="utf-8"))["pretrain"]["lr_at_step"]
    assert _above(_changed(tmp_path, lr_at_step={"5740": rates["5741"]})) == ["learning rate at step 5740"]


def test_a_parameter_in_the_other_group_is_named(tmp_path: Path) -> None:
    pretrain = json.loads(FILE.read_text(encoding="utf-8"))["pretrain"]
    pretrain["decay"].remove("projector.weight")
    pretrain["no_decay"].append("projector.weight")
    path = _changed(tmp_path, **pretrain)
    assert _above(path) == ["parameters in decay", "parameters in no_decay"]
    assert {row.note for row in compare_schedule(path) if row.note} == {"projector.weight"}


@pytest.mark.parametrize(
    ("key", "value"), [("weight_decay", 0.04), ("betas", [0.9, 0.95]), ("eps", 1e-6), ("clip_grad", 1.0)]
)
def test_another_optimiser_is_seen(tmp_path: Path, key: str, value: Any) -> None:
    assert len(_above(_changed(tmp_path, **{key: value}))) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"momentum": 0.9}, "pretrain.momentum"),
        ({"epochs": "many"}, "pretrain.epochs"),
        ({"lr_at_step": {"soon": 1e-4}}, "pretrain.lr_at_step.soon"),
        ({"lr_at_step": {"1": float("nan")}}, "pretrain.lr_at_step.1"),
        ({"decay": ["projector.weight"], "no_decay": ["projector.bias"]}, "no blocks encoder.layers.S.blocks.B"),
        ({"decay": ["projector.bias"]}, "projector.bias stands in decay and in no_decay"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = _changed(tmp_path, **change)
    with pytest.raises(GfmError) as error:
        compare_schedule(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
