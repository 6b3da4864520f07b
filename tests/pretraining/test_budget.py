"""A training stops at its budget with a checkpoint, says so in one line, and goes on when the budget is raised."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from gfm.errors import GfmError
from gfm.pretraining import spending
from gfm.pretraining.budget import BudgetUsed
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.run import pretrain
from gfm.tracking.carbon import Energy, Meter

GFM = Path("models/encoders/gfm")


def _weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def _checkpoint() -> dict:
    (file,) = Path("checkpoints/gfm").glob("step-*.ckpt")
    return torch.load(file, weights_only=True)


def _spent() -> dict[str, float]:
    return next(state for name, state in _checkpoint()["callbacks"].items() if name == "Spending")


def test_a_used_budget_stops_with_a_checkpoint_and_a_raised_one_ends_as_if_undisturbed(teacher, make_params):
    pretrain(make_params(), "gfm")
    whole, history = _weights(), (GFM / "history.csv").read_text()
    with pytest.raises(
        BudgetUsed,
        match=r"^pretrain\.gfm: stopped at step 1 of 12, its budget\.hours = 1e-09 is used \(.* h\); the checkpoint is "
        r"checkpoints/gfm/step-000000001\.ckpt: raise pretrain\.gfm\.budget\.hours and run the same command again",
    ):
        pretrain(make_params(pretrain={"budget": {"hours": 1e-9}}), "gfm")
    pretrain(make_params(pretrain={"budget": {"hours": 1.0}}), "gfm")
    assert all(torch.equal(value, _weights()[key]) for key, value in whole.items())
    assert (GFM / "history.csv").read_text() == history
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == 1


def test_hours_count_across_resumes(teacher, make_params, monkeypatch):
    """On a clock that an hour passes on at every look: one at the start, and one after each step."""

    def train(hours: float) -> None:
        looks = iter(range(0, 100 * 3600, 3600))
        monkeypatch.setattr(spending, "time", SimpleNamespace(monotonic=lambda: next(looks)))
        pretrain(make_params(pretrain={"budget": {"hours": hours}}), "gfm")

    with pytest.raises(BudgetUsed, match=r"stopped at step 3 of 12, its budget.hours = 3.5 is used \(4 h\)"):
        train(3.5)
    assert _spent()["seconds"] == 4 * 3600
    with pytest.raises(BudgetUsed, match=r"stopped at step 3 of 12, its budget.hours = 4.5 is used \(5 h\)"):
        train(4.5)
    with pytest.raises(BudgetUsed, match=r"stopped at step 5 of 12, its budget.hours = 6.5 is used \(7 h\)"):
        train(6.5)


@pytest.mark.parametrize(("limit", "unit"), [("kwh", "kWh"), ("kg_co2eq", "kg CO2eq")])
def test_energy_is_a_budget_where_it_is_measured(teacher, make_params, monkeypatch, limit, unit):
    looks = iter(range(100))

    def so_far(self: Meter) -> Energy:
        used = next(looks) * 0.1
        return Energy(used, used, 1.0, "made up", "estimated", "FRA", 1.0)

    monkeypatch.setattr(Meter, "so_far", so_far)
    monkeypatch.setattr(Meter, "measures", True)
    with pytest.raises(BudgetUsed, match=rf"step 5 of 12, its budget\.{limit} = 0.45 is used \(0.5 {unit}\)"):
        pretrain(make_params(pretrain={"budget": {limit: 0.45}}), "gfm")
    assert _spent()[limit] == pytest.approx(0.5)


def test_an_energy_budget_that_cannot_be_measured_is_refused_before_training(teacher, make_params):
    with pytest.raises(GfmError, match=r"budget\.kwh = 1: the energy is not measured: codecarbon is not installed; .*"):
        pretrain(make_params(pretrain={"budget": {"kwh": 1.0}}), "gfm")


def test_one_step_an_epoch_can_be_stopped_and_resumed(teacher, make_params):
    """No step lies between epochs' ends there: the checkpoint is written after the validation."""
    settings = {"batch_size": 16, "epochs": 6}
    pretrain(make_params(pretrain=settings), "gfm")
    whole, history = _weights(), (GFM / "history.csv").read_text()
    with pytest.raises(BudgetUsed):
        pretrain(make_params(pretrain=settings | {"budget": {"hours": 1e-9}}), "gfm")
    pretrain(make_params(pretrain=settings), "gfm")
    assert all(torch.equal(value, _weights()[key]) for key, value in whole.items())
    assert (GFM / "history.csv").read_text() == history


def test_a_loss_that_is_not_a_number_leaves_the_last_valid_checkpoint(teacher, make_params, monkeypatch):
    losses = RecipeModule._losses

    def broken(self, batch, train):
        values = losses(self, batch, train)
        return [value * (float("nan") if self.global_step == 5 else 1) for value in values]

    params = make_params(pretrain={"checkpoint_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(RecipeModule, "_losses", broken)
        with pytest.raises(GfmError, match="the loss became nan at step 5"):
            pretrain(params, "gfm")
    state = _checkpoint()
    assert state["global_step"] == 5
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    pretrain(params, "gfm")
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == 5


def test_weights_spoilt_behind_a_finite_loss_never_enter_a_checkpoint(teacher, make_params, monkeypatch):
    step = RecipeModule.training_step

    def spoilt(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        weight = next(weight for weight in self.parameters() if weight.requires_grad)
        if self.global_step == 5:
            loss = loss + (weight.sum() * 0).sqrt()  # zero, with an infinite slope
        return loss

    monkeypatch.setattr(RecipeModule, "training_step", spoilt)
    with pytest.raises(GfmError, match=r"pretrain\.gfm: weights became infinite or no number by step 6; lower"):
        pretrain(make_params(pretrain={"checkpoint_steps": 1}), "gfm")
    state = _checkpoint()
    assert state["global_step"] == 5
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
