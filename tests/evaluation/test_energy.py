"""kg CO2eq of a model: everything that made it, and no zero for what was not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gfm.errors import DataError
from gfm.evaluation.energy import costs, everything, tasks_costs
from gfm.evaluation.scores import read_runs
from gfm.params import Architecture, Carbon, Params, TimmEncoder
from gfm.tracking.provenance import content_hash


def edit_energy(folder: str, **changes: Any) -> None:
    path = Path(folder) / "run.json"
    record = json.loads(path.read_text())
    record["energy"] = (record["energy"] or {}) | changes
    path.write_text(json.dumps(record))


def test_a_pretrained_model_pays_for_its_teacher_and_its_fine_tunings(workspace: Any) -> None:
    spent = costs(workspace.params, read_runs(workspace.params))
    assert spent["random"].kg_co2eq == pytest.approx(3 * 0.0004)
    assert spent["teacher"].kg_co2eq == pytest.approx(0.0009 + 3 * 0.0004)
    assert spent["gfm"].kg_co2eq == pytest.approx(0.0031 + 0.0009 + 3 * 0.0004)
    assert spent["gfm"].kwh == pytest.approx((0.0031 + 0.0009 + 3 * 0.0004) / 0.4)
    assert [part.what for part in spent["gfm"].parts][:2] == ["pretraining gfm", "teacher"]


def test_a_search_before_the_fine_tuning_is_paid_for_too(workspace: Any) -> None:
    path = Path("models/tasks/change/gfm/run.json")
    record = json.loads(path.read_text())
    record["search"] = {"energy": {"kwh": 0.05, "kg_co2eq": 0.02, "method": "by the test", "seconds": 9.0}}
    path.write_text(json.dumps(record))
    before = 0.0031 + 0.0009 + 3 * 0.0004
    spent = costs(workspace.params, read_runs(workspace.params))["gfm"]
    assert spent.kg_co2eq == pytest.approx(before + 0.02) and spent.kwh == pytest.approx(before / 0.4 + 0.05)
    assert "search on change" in [part.what for part in spent.parts]


def test_one_unmeasured_part_leaves_no_sum_and_is_named(workspace: Any) -> None:
    edit_energy("models/tasks/change/gfm", kwh=None, kg_co2eq=None, method="not measured: codecarbon is not installed")
    spent = costs(workspace.params, read_runs(workspace.params))
    assert spent["gfm"].kg_co2eq is None
    assert spent["gfm"].unmeasured == ["fine-tuning on change"]
    assert "not measured: codecarbon is not installed" in spent["gfm"].methods
    assert spent["teacher"].kg_co2eq is not None


def test_an_encoder_from_elsewhere_costs_its_fine_tunings_and_says_what_is_left_out(workspace: Any) -> None:
    declared = TimmEncoder(kind="timm", architecture=Architecture(), weights="hub", licence="MIT")
    params = workspace.params.model_copy(
        update={"encoders": {"theirs": declared}, "models": [*workspace.params.models, "theirs"]}
    )
    with pytest.raises(DataError, match="dvc repro encoder@theirs"):
        costs(params, [])
    workspace.write_encoder("theirs", {"kwh": None, "kg_co2eq": None, "method": "not measured: trained elsewhere"})
    config = Path("models/encoders/theirs/config.json")
    config.write_text(json.dumps({"gfm": {"origin": "imported"}}))
    for task in params.tasks:
        workspace.write_run(task, "theirs", (0.5, 0.6))
    spent = costs(params, read_runs(params))["theirs"]
    assert spent.kg_co2eq == pytest.approx(3 * 0.0004)
    assert spent.parts[0].what == "encoder theirs (imported)"
    assert spent.note == "without its own training, which happened elsewhere"


def test_the_grid_and_the_method_are_said(workspace: Any) -> None:
    cost = costs(workspace.params, read_runs(workspace.params))["gfm"]
    assert cost.methods == ["codecarbon 3.3.2: CPU by its load"]
    assert cost.grids == ["0.400 kg CO2eq per kWh (USA, stated in carbon.intensity_kg_per_kwh)"]


def with_carbon(params: Params, **carbon: Any) -> Params:
    return params.model_copy(update={"carbon": Carbon(**carbon)})


def test_another_intensity_restates_kg_from_the_measured_kwh_and_says_so(workspace: Any) -> None:
    before = costs(workspace.params, read_runs(workspace.params))
    params = with_carbon(workspace.params, country_iso="FRA", intensity_kg_per_kwh=0.05)
    after = costs(params, read_runs(params))
    for model in params.models:
        kg = before[model].kg_co2eq
        assert kg is not None and after[model].kg_co2eq == pytest.approx(kg / 8)
        assert after[model].kwh == before[model].kwh
    assert after["gfm"].grids == [
        "0.050 kg CO2eq per kWh (FRA, stated in carbon.intensity_kg_per_kwh), "
        "restated from the measured kWh; recorded with 0.400"
    ]


def test_an_intensity_that_is_no_longer_stated_gives_way_to_the_countrys(workspace: Any) -> None:
    params = with_carbon(workspace.params, country_iso="FRA")
    cost = costs(params, read_runs(params))["gfm"]
    assert 0 < cost.kg_co2eq / cost.kwh < 0.2  # type: ignore[operator]
    assert "FRA, codecarbon's yearly figure for France), restated" in cost.grids[0]


def test_without_codecarbon_the_recorded_figures_stand(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "codecarbon.core.emissions", None)
    params = with_carbon(workspace.params)
    cost = costs(params, read_runs(params))["gfm"]
    assert cost.kg_co2eq == pytest.approx(0.0031 + 0.0009 + 3 * 0.0004)
    assert cost.grids == ["0.400 kg CO2eq per kWh (USA, stated in carbon.intensity_kg_per_kwh)"]


def test_an_imported_teacher_costs_nothing_here_and_the_page_says_what_is_left_out(workspace: Any) -> None:
    timm = {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "x"}
    raw = workspace.params.model_dump(mode="json") | {"teacher": timm}
    workspace.params = type(workspace.params).model_validate(raw)
    workspace.write_encoder("teacher", energy=None)
    spent = costs(workspace.params, read_runs(workspace.params))
    assert spent["gfm"].kg_co2eq == pytest.approx(0.0031 + 3 * 0.0004)
    assert "imported teacher" in spent["gfm"].note


def assembled(kg: float) -> None:
    """A manifest of 300 images, made here with so many kg."""
    manifest = Path("data/geopile/manifest.parquet")
    pd.DataFrame({"id": [str(number) for number in range(300)]}).to_parquet(manifest)
    note = {"made": content_hash(manifest), "energy": {"kwh": kg / 0.4, "kg_co2eq": kg, "computed_kwh": 1.0}}
    Path(".gfm/energy").mkdir(parents=True)
    Path(".gfm/energy/assemble.json").write_text(json.dumps(note), encoding="utf-8")


def test_what_was_trained_on_the_collection_pays_for_its_assembly_and_the_sum_of_all_once(workspace: Any) -> None:
    before = costs(workspace.params, read_runs(workspace.params))
    assert "without the assembly of the collection, which was not measured here" in before["gfm"].note
    assembled(0.002)
    spent = costs(workspace.params, read_runs(workspace.params))
    for model, more in (("random", 0.0), ("teacher", 0.002), ("gfm", 0.002)):
        assert spent[model].kg_co2eq == pytest.approx(before[model].kg_co2eq + more)
        assert "assembly" not in spent[model].note
    whole = everything(spent)
    assert whole.kg_co2eq == pytest.approx(0.002 + 0.0009 + 0.0031 + 9 * 0.0004)
    assert len(whole.parts) == 12


def test_cost_by_task_and_by_thousand_samples(workspace: Any) -> None:
    spent = costs(workspace.params, read_runs(workspace.params))
    by_task = tasks_costs(spent)
    assert list(by_task) == ["scenes", "buildings", "change"]
    assert by_task["change"].kg_co2eq == pytest.approx(3 * 0.0004)
    assert by_task["change"].kg_per_1000 == pytest.approx(0.0004 / 1.9)
    pretraining = spent["gfm"].parts[0]
    assert pretraining.kg_per_1000 == pytest.approx(0.0031 / 2.8)


def test_computed_figures_stand_beside_and_follow_the_grid_of_now(workspace: Any) -> None:
    edit_energy("models/encoders/teacher", computed_kwh=2.0, computed_kg_co2eq=9.0, computed_from="hours x 65 W")
    teacher = costs(workspace.params, read_runs(workspace.params))["teacher"]
    assert teacher.parts[0].computed_kg_co2eq == pytest.approx(2.0 * 0.4)
    assert teacher.computed_kg_co2eq is None  # the fine-tunings' are not known
    assert teacher.computed_from == ["hours x 65 W"]
