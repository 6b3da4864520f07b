"""Published weights that are used otherwise than they were trained are refused, or at least remarked on."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from gfm.errors import WeightsError
from gfm.params import TimmEncoder
from gfm.pretraining.declared_weights import check_batch_norm, check_input

NETWORK = {"name": "mobilenetv2_035", "image_px": 64}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def declared(**changes):
    fields = {"kind": "timm", "weights": "w.safetensors", "sha256": "0" * 64, "licence": "x", "architecture": NETWORK}
    return TimmEncoder.model_validate(fields | changes)


def put(folder, metadata=None, config=None):
    save_file({"a": torch.zeros(1)}, folder / "w.safetensors", metadata)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def test_a_file_that_states_another_normalisation_is_refused_with_the_line_to_write(tmp_path):
    put(tmp_path, {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"})
    told = r"^teacher\.normalisation\.mean = .*w\.safetensors was trained with .*give .*: \{mean: \[0\.5, 0\.5, 0\.5\]"
    with pytest.raises(WeightsError, match=told):
        check_input(declared(), tmp_path, "teacher")
    assert check_input(declared(normalisation=HALF), tmp_path, "teacher") == ""


def test_the_config_beside_a_file_of_the_hub_is_believed(tmp_path):
    put(tmp_path, config={"architecture": "mobilenetv2_035", "pretrained_cfg": HALF})
    with pytest.raises(WeightsError, match=r"^encoders\.a\.normalisation\.mean"):
        check_input(declared(), tmp_path, "encoders.a")
    assert check_input(declared(normalisation=HALF), tmp_path, "encoders.a") == ""


@pytest.mark.parametrize(
    ("metadata", "config"), [({"pad_type": "same"}, None), ({}, {"model_args": {"pad_type": "same"}})]
)
def test_an_argument_that_no_tensor_shows_is_asked_for(tmp_path, metadata, config):
    put(tmp_path, metadata, config)
    with pytest.raises(
        WeightsError, match=r"args has nothing for pad_type: .* give teacher\.architecture\.args: \{pad_type: same\}"
    ):
        check_input(declared(), tmp_path, "teacher")
    assert check_input(declared(architecture=NETWORK | {"args": {"pad_type": "same"}}), tmp_path, "teacher") == ""


def test_a_silent_file_with_an_unusual_normalisation_gets_a_remark_and_with_the_usual_one_none(tmp_path):
    put(tmp_path)
    remark = check_input(declared(normalisation=HALF), tmp_path, "teacher")
    assert remark.startswith("teacher.normalisation is not timm's for mobilenetv2_035 (mean: [0.485, 0.456, 0.406]")
    assert check_input(declared(normalisation=IMAGENET), tmp_path, "teacher") == ""


def test_the_normalisation_of_hub_weights_is_known_before_they_are_fetched(tmp_path):
    hub = {"weights": "hub", "sha256": None, "architecture": {"name": "vit_base_patch16_224", "image_px": 224}}
    assert timm.get_pretrained_cfg("vit_base_patch16_224").mean == (0.5, 0.5, 0.5)
    with pytest.raises(WeightsError, match=r"timm's weights of vit_base_patch16_224 was trained with mean: \[0\.5"):
        check_input(declared(**hub), tmp_path, "teacher")
    assert check_input(declared(**hub, normalisation=HALF), tmp_path, "teacher") == ""


@pytest.mark.parametrize(
    "config",
    [
        '{"pretrained_cfg": {"mean": ["a", "b", "c"]}}',
        '{"pretrained_cfg": {"mean": [null, null, null]}}',
        '{"pretrained_cfg": {"mean": [[1], [2], [3]]}}',
        '{"pretrained_cfg": {"std": [true, true, true]}}',
        '{"pretrained_cfg": {"std": [1' + "0" * 400 + ", 1, 1]}}",
        '{"pretrained_cfg": [], "model_args": {"act_layer": {"a": 1}}}',
        "[]",
    ],
)
@pytest.mark.parametrize(
    "metadata", [{}, {"mean": "inf,1,1"}, {"mean": "nan,nan,nan"}, {"mean": "a,b"}, {"std": "[[1],2]"}]
)
def test_what_can_be_no_declaration_says_nothing(tmp_path, config, metadata):
    put(tmp_path, metadata)
    (tmp_path / "config.json").write_text(config)
    assert check_input(declared(), tmp_path, "teacher") == ""
    assert "does not say which it was trained with" in check_input(declared(normalisation=HALF), tmp_path, "teacher")


def test_a_config_nested_without_end_is_named(tmp_path):
    put(tmp_path)
    (tmp_path / "config.json").write_text("[" * 200_000)
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        check_input(declared(), tmp_path, "teacher")


def test_folded_statistics_must_be_frozen():
    model = timm.create_model("mobilenetv2_035", num_classes=0)
    with pytest.raises(WeightsError, match=r"teacher\.batch_norm = live: all batch norm means of w are 0 .*frozen"):
        check_batch_norm(declared(), model.state_dict(), "teacher", "w")
    check_batch_norm(declared(batch_norm="frozen"), model.state_dict(), "teacher", "w")
    model.bn1.running_mean.fill_(0.1)
    check_batch_norm(declared(), model.state_dict(), "teacher", "w")
    check_batch_norm(declared(), {"a": torch.zeros(1)}, "teacher", "w")  # no batch norm at all
