"""A training that resumes goes on in its MLflow run, and its energy is that of all of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from gfm.params import Params
from gfm.pretraining.budget import BudgetUsed
from gfm.pretraining.run import pretrain
from gfm.pretraining.spending import Spending
from gfm.tracking.carbon import Energy, Meter

TRACKED = {"tracking": {"uri": "sqlite:///mlflow.db"}}
EVERY_STEP = {"checkpoint_steps": 1}


def _runs(kind: str = "pretrain") -> list[Any]:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")  # MLflow keeps a store by its address
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run for run in client.search_runs(experiments) if run.data.tags.get("gfm.kind") == kind]


def _pipelines() -> list[tuple[str, str | None]]:
    return [(run.info.status, run.data.tags.get("gfm.stopped")) for run in _runs("pipeline")]


def _record() -> dict[str, Any]:
    return json.loads(Path("models/encoders/gfm/run.json").read_text())


def test_a_training_killed_twice_is_one_run(teacher, make_params, killed_at):
    params = make_params(pretrain=EVERY_STEP, **TRACKED)
    killed_at(params, 3)
    killed_at(params, 6)
    (begun,) = _runs()
    assert begun.info.status == "FAILED"
    pretrain(params, "gfm")
    (run,) = _runs()
    assert run.info.run_id == begun.info.run_id == _record()["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["gfm.resumes"] == "2"
    assert not Path("checkpoints/gfm").exists()


def test_a_training_of_other_parameters_is_another_run(teacher, make_params, killed_at):
    killed_at(make_params(pretrain=EVERY_STEP, **TRACKED), 3)
    pretrain(make_params(pretrain={"alpha": 0.5}, **TRACKED), "gfm")
    assert sorted(run.info.status for run in _runs()) == ["FAILED", "FINISHED"]


def test_a_training_that_died_before_its_first_checkpoint_is_another_run(teacher, make_params, killed_at):
    params = make_params(**TRACKED)
    killed_at(params, 3)
    pretrain(params, "gfm")
    assert len({run.info.run_id for run in _runs()}) == 2


def test_a_budget_stop_is_a_state_of_its_own_and_goes_on(teacher, make_params):
    def with_hours(hours: float) -> Params:
        return make_params(pretrain={"budget": {"hours": hours}}, **TRACKED)

    with pytest.raises(BudgetUsed):
        pretrain(with_hours(1e-9), "gfm")
    (stopped,) = _runs()
    assert stopped.info.status == "KILLED" and stopped.data.tags["gfm.stopped"] == "budget"
    assert _pipelines() == [("KILLED", "budget")]
    assert "budget.hours = 1e-09 is used" in stopped.data.tags["error"]
    pretrain(with_hours(1.0), "gfm")
    (run,) = _runs()
    assert (run.info.run_id, run.info.status) == (stopped.info.run_id, "FINISHED")
    assert "gfm.stopped" not in run.data.tags


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of a training takes 0.25 kWh, all of it before its first step."""

    def energy(self: Meter) -> Energy:
        return Energy(0.25, 0.1, 60.0, "by the test", "estimated", "FRA", 0.4)

    monkeypatch.setattr(Meter, "so_far", energy)
    monkeypatch.setattr(Meter, "measures", True)
    monkeypatch.setattr(Meter, "energy", property(energy, lambda self, value: None), raising=False)


def test_the_energy_of_a_resumed_training_is_that_of_all_its_parts(teacher, make_params, killed_at, metered):
    params = make_params(pretrain=EVERY_STEP, **TRACKED)
    killed_at(params, 3)
    pretrain(params, "gfm")
    energy = _record()["energy"]
    assert energy["kwh"] == pytest.approx(0.5) and energy["kg_co2eq"] == pytest.approx(0.2)
    assert energy["seconds"] > 60.0
    assert energy["method"].startswith("by the test; resumed at step 3, without what a kill lost")
    (run,) = _runs()
    assert run.data.metrics["kwh"] == pytest.approx(0.5)


def test_a_part_that_was_not_measured_leaves_no_figure_for_the_whole(teacher, make_params, killed_at, request):
    params = make_params(pretrain=EVERY_STEP)
    killed_at(params, 3)
    request.getfixturevalue("metered")
    pretrain(params, "gfm")
    energy = _record()["energy"]
    assert energy["kwh"] is None and energy["kg_co2eq"] is None
    assert energy["method"] == "not measured before step 3, where it was resumed"


def test_spending_in_one_go_is_what_the_meter_says():
    energy = Energy(0.25, 0.1, 60.0, "by the test", "estimated", "FRA", 0.4)
    assert Spending(None).whole(energy, None) is energy  # type: ignore[arg-type]
