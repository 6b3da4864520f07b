"""Who learns how fast: head, encoder, the layers of the encoder."""

from __future__ import annotations

import pytest

from gfm.downstream.adaptation.groups import parameter_groups
from gfm.downstream.tasks import TaskSpec, build_model


@pytest.fixture
def model(make_encoder):
    return build_model("classification", make_encoder("test_vit"), TaskSpec("t", ("a", "b"), 1, 3, 32))


def _of(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_every_parameter_is_in_one_group(model):
    for layer_decay in (1.0, 0.5):
        groups = parameter_groups(model, head_lr=1, encoder_lr=0.1, weight_decay=0.05, layer_decay=layer_decay)
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) == len(_of(model, groups))


def test_rates_fall_from_the_head_to_the_stem(model):
    found = _of(model, parameter_groups(model, head_lr=1.0, encoder_lr=0.1, weight_decay=0.05, layer_decay=0.5))
    blocks = len(model.encoder.backbone.blocks)
    assert found["head.weight"]["lr"] == 1.0
    assert found["encoder.backbone.norm.weight"]["lr"] == 0.1
    assert found[f"encoder.backbone.blocks.{blocks - 1}.mlp.fc1.weight"]["lr"] == pytest.approx(0.05)
    assert found["encoder.backbone.patch_embed.proj.weight"]["lr"] == pytest.approx(0.1 * 0.5 ** (blocks + 1))


def test_vectors_and_position_tables_are_not_decayed(model):
    found = _of(model, parameter_groups(model, head_lr=1.0, encoder_lr=0.1, weight_decay=0.05))
    undecayed = {name for name, group in found.items() if group["weight_decay"] == 0}
    assert {"head.bias", "encoder.backbone.pos_embed", "encoder.backbone.norm.weight"} <= undecayed
    assert found["head.weight"]["weight_decay"] == 0.05


def test_what_is_frozen_is_in_no_group(model):
    model.encoder.freeze()
    found = _of(model, parameter_groups(model, head_lr=1.0, encoder_lr=0.1, weight_decay=0.05))
    assert set(found) == {"head.weight", "head.bias"}
