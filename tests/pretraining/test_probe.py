"""Probes say how good the features are, and training does not notice them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from gfm.errors import DataError
from gfm.pretraining.probe import ProbeData, knn_accuracy, linear_accuracy
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")
PROBE = {"sources": ["scenes"], "every_epochs": 2, "neighbours": 3}


def _weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def _probes() -> list[dict[str, float]]:
    with (GFM / "probes.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("more", [{}, {"workers": 1, "recipe": "distill", "cached_crops": 2}])
def test_a_training_is_the_same_to_the_bit_with_and_without_a_probe(teacher, make_params, more):
    pretrain(make_params(pretrain=more), "gfm")
    whole, history = _weights(), (GFM / "history.csv").read_text()
    assert not (GFM / "probes.csv").exists()
    pretrain(make_params(pretrain=more | {"probe": PROBE | {"every_epochs": 1}}), "gfm")
    assert all(torch.equal(whole[key], _weights()[key]) for key in whole)
    assert (GFM / "history.csv").read_text() == history
    assert len(_probes()) == 4


def test_pretrainings_of_several_seeds_are_probed_on_the_same_images(teacher, make_params, monkeypatch):
    seen = []
    read = ProbeData.read.__func__

    def noted(cls, *given):
        seen.append(read(cls, *given))
        return seen[-1]

    monkeypatch.setattr(ProbeData, "read", classmethod(noted))
    for seed in (0, 1):
        pretrain(make_params(pretrain={"epochs": 1, "seed": seed, "probe": PROBE | {"images": 4}}), "gfm")
    one, other = ([[rows.id(row) for row in range(len(rows))] for rows in (data.train, data.test)] for data in seen)
    assert one == other and [len(ids) for ids in one] == [4, 4]


def test_batch_norm_does_not_notice_the_probe(folder, make_params):
    student = {"architecture": {"name": "mobilenetv2_035", "image_px": 64, "args": {}}}
    run = {"recipe": "simmim", "epochs": 2}
    pretrain(make_params(pretrain=run, student=student), "gfm")
    whole = _weights()
    pretrain(make_params(pretrain=run | {"probe": PROBE | {"every_epochs": 1}}, student=student), "gfm")
    assert all(torch.equal(whole[key], _weights()[key]) for key in whole)


def test_probes_come_before_the_first_step_every_few_epochs_and_at_the_end(teacher, make_params):
    pretrain(make_params(pretrain={"probe": PROBE}), "gfm")
    rows = _probes()
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (2, 8), (3, 12)]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("knn", "linear"))
    assert rows[-1]["linear"] == 1.0, "dark and bright images are told apart"
    metrics = json.loads((GFM / "run.json").read_text())["metrics"]
    assert (metrics["probe_knn"], metrics["probe_knn_start"]) == (rows[-1]["knn"], rows[0]["knn"])
    assert "`probe_linear`: accuracies on held-out labelled images" in (GFM / "README.md").read_text()


@pytest.mark.parametrize("killed", [5, 8])
def test_a_resumed_training_has_the_probes_of_an_undisturbed_one(teacher, make_params, killed_at, killed):
    params = make_params(pretrain={"probe": PROBE, "checkpoint_steps": 1, "ema_decay": 0.9})
    pretrain(params, "gfm")
    whole, probes = _weights(), _probes()
    killed_at(params, killed)
    pretrain(params, "gfm")
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == killed
    assert _probes() == probes
    assert all(torch.equal(whole[key], _weights()[key]) for key in whole)


def test_a_probe_may_be_added_to_a_training_that_was_killed(teacher, make_params, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RecipeModule, "on_validation_epoch_end", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(make_params(pretrain={"checkpoint_steps": 1}), "gfm")
    pretrain(make_params(pretrain={"probe": PROBE}), "gfm")
    assert [row["step"] for row in _probes()] == [8, 12]
    assert "probe_knn_start" not in json.loads((GFM / "run.json").read_text())["metrics"]


def test_nothing_to_tell_apart_is_said_before_training(teacher, make_params):
    import pyarrow.parquet as pq

    table = pq.read_table("data/geopile/manifest.parquet")
    names = ["sand"] * len(table)
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), "label", [names]), "data/geopile/manifest.parquet"
    )
    with pytest.raises(DataError, match=r"pretrain\.gfm\.probe\.sources scenes: 1 classes in the training split"):
        pretrain(make_params(pretrain={"probe": PROBE}), "gfm")


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100), classes=st.integers(2, 5))
def test_classes_that_lie_apart_are_all_known_whatever_the_features_scale(seed, scale, classes):
    rng = np.random.default_rng(seed)
    labels = [f"class {index % classes}" for index in range(100 * classes)]
    centres = np.eye(16)[[index % classes for index in range(100 * classes)]]
    features = (scale * (centres + 0.01 * rng.normal(size=centres.shape))).astype(np.float32)
    half = len(labels) // 2
    parts = features[:half], labels[:half], features[half:], labels[half:]
    assert knn_accuracy(*parts, neighbours=3) == 1.0
    assert linear_accuracy(*parts) == 1.0
    order = rng.permutation(half)
    shuffled = features[:half][order], [labels[i] for i in order], features[half:], labels[half:]
    assert linear_accuracy(*shuffled) == linear_accuracy(*parts)
