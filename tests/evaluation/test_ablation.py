"""Ablations: told by recorded settings, never by names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from gfm.evaluation.ablation import differences
from gfm.evaluation.evaluate import evaluate
from gfm.params import Pretraining

SOURCES = ["naip", "patternnet"]


def _settings(recipe: str = "gfm", sources: list[str] | None = None, **own: Any) -> dict[str, Any]:
    section: Any = TypeAdapter(Pretraining).validate_python({"recipe": recipe, "epochs": 6, **own})
    return section.model_dump(mode="json") | {"sources": SOURCES if sources is None else sources, "student": {"px": 96}}


def _keys(own: dict[str, Any]) -> list[str]:
    return [found.key for found in differences(_settings(), own)]


@pytest.mark.parametrize("recipe", ["simmim", "simmim-continual", "distill", "gfm-fast"])
def test_another_recipe_is_one_difference_with_all_that_belongs_to_it(recipe: str) -> None:
    assert _keys(_settings(recipe)) == ["recipe"]


def test_each_setting_counts_and_what_does_not_change_what_is_learned_does_not() -> None:
    assert _keys(_settings(alpha=0.0)) == ["alpha"]
    assert _keys(_settings(student_tap={"stage": 4, "merged": False})) == ["student_tap.stage", "student_tap.merged"]
    assert _keys(_settings(workers=0, keep_checkpoints=3)) == []
    assert set(_keys(_settings("simmim", epochs=7))) == {"recipe", "epochs"}
    (left_out,) = differences(_settings(), _settings(sources=["naip"]))
    assert (left_out.key, left_out.reference, left_out.own) == ("sources", "naip, patternnet", "naip")


def test_the_page_has_them_as_soon_as_their_runs_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fabricate: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {"gfm": {}, "alike": {"alpha": 0.0}, "far": {"alpha": 0.0, "epochs": 9}, "old": {}}
    params = fabricate.params(
        pretrain={name: {"recipe": "gfm", "schedule": {"warmup_epochs": 1}, **own} for name, own in runs.items()},
        models=["random", "teacher", *runs],
    )
    made = fabricate.workspace(params)
    made.write_all()
    for name, own in runs.items():
        made.write_encoder(name, energy=None, settings=None if name == "old" else _settings(**{"epochs": 6, **own}))
    evaluate(params)
    page = Path("reports/report.html").read_text()
    section = page[page.index('id="ablations"') : page.index('id="learning"')]
    assert "<code>alpha</code></td><td>1.0</td><td>0.0</td>" in section and "ARP over gfm" in section
    assert "far differs in 2 settings: alpha, epochs." in section and "Settings are not recorded of old" in section


def test_one_pretraining_has_no_section(workspace: Any) -> None:
    evaluate(workspace.params)
    assert 'id="ablations"' not in Path("reports/report.html").read_text()
