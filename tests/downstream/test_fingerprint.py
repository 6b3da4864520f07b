"""Two trainings have one fingerprint where their scores cannot differ, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gfm.downstream.fingerprint import fingerprint
from gfm.params import Task

TASK = {
    "kind": "classification",
    "data": {"format": "class-folders", "root": "s", "split": {"val_share": 0.2, "test_share": 0.2}},
}


def of(task=TASK, index="i"):
    return fingerprint(Task.model_validate(task), index, "teacher")


@pytest.fixture
def card(workplace):
    """Changes the card of the encoder."""
    workplace.encoders()

    def change(**values):
        path = Path("models/encoders/teacher/config.json")
        config = json.loads(path.read_text())
        config["gfm"] |= values
        path.write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    "values", [{"wavelengths_um": [0.49, 0.56, 0.66]}, {"unshifted_stages": [1]}, {"image_px": 64}]
)
def test_what_an_encoder_computes_with_counts(card, values):
    before = of()
    card(**values)
    assert of() != before


def test_its_history_does_not_count(card):
    before = of()
    card(licence="CC-BY", parents=["a"], energy={"kwh": 1.0}, provenance={"commit": "c"})
    assert of() == before


def test_settings_and_data_count_but_not_how_many_seeds_or_workers(card):
    before = of()
    assert of(index="j") != before
    assert of(TASK | {"image_px": 128}) != before
    assert of(TASK | {"finetune": {"lr": 2e-3}}) != before
    assert of(TASK | {"finetune": {"seeds": [5], "workers": 1}}) == before
