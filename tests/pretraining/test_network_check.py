"""`gfm check` builds every network without weights and names the key that does not fit."""

from __future__ import annotations

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file

from gfm.errors import GfmError
from gfm.pretraining.network_check import check_networks

WEIGHTS = {
    "kind": "timm",
    "weights": "lost.safetensors",
    "sha256": hashlib.sha256(b"").hexdigest(),
    "licence": "x",
    "architecture": {},
}
HALF = {"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}


def test_what_trains_passes_whatever_its_recipe(make_params, tmp_path):
    for recipe in ("gfm", "simmim", "simmim-continual", "distill", "gfm-fast"):
        check_networks(make_params(pretrain={"recipe": recipe}), tmp_path)


def test_weights_are_looked_for_beside_the_parameter_file(make_params, tmp_path):
    network = {"name": "mobilenetv2_035", "image_px": 64}
    params = make_params(teacher=WEIGHTS | {"architecture": network}, pretrain={"recipe": "simmim"})
    with pytest.raises(GfmError, match=r"^teacher\.weights = lost\.safetensors: no such file; the path starts at the"):
        check_networks(params, tmp_path)
    save_file({}, tmp_path / "lost.safetensors")
    with pytest.raises(GfmError, match=r"lost\.safetensors: its sha256 is .*, but teacher\.sha256 = "):
        check_networks(params, tmp_path)


@pytest.mark.parametrize(
    ("parts", "pretrain", "told"),
    [
        (
            {"student": {"architecture": {"name": "swin_tony", "image_px": 64}}},
            {},
            r"^student\.architecture: .*swin_tony",
        ),
        (
            {"student": {"architecture": {"name": "mobilenetv2_035", "image_px": 64, "args": {"depth": 3}}}},
            {},
            r"^student\.architecture: architecture mobilenetv2_035 with \{'depth': 3\}: timm refuses it",
        ),
        (
            {"student": {"architecture": {"name": "mobilenetv2_035", "image_px": 64}}},
            {},
            r"^pretrain\.gfm\.student_tap",
        ),
        ({}, {"teacher_tap": {"stage": 4, "merged": True}}, r"^pretrain\.gfm\.teacher_tap"),
        (
            {
                "teacher": WEIGHTS
                | {"architecture": {"name": "test_vit", "image_px": 64}, "weights": "hub", "sha256": None}
                | HALF
            },
            {"teacher_px": 8},
            r"^pretrain\.gfm\.teacher_px: image_px = 8",
        ),
    ],
)
def test_what_timm_or_the_recipe_refuses_is_named_by_its_key(make_params, tmp_path, parts, pretrain, told):
    with pytest.raises(GfmError, match=told):
        check_networks(make_params(pretrain=pretrain, **parts), tmp_path)


def test_every_tap_that_its_network_lacks_is_named_at_once(make_params, tmp_path):
    last = {"stage": 4, "merged": True}
    params = make_params(pretrain={"teacher_tap": last, "student_tap": last})
    params = params.model_copy(update={"pretrain": params.pretrain | {"again": params.pretrain["gfm"]}})
    with pytest.raises(GfmError) as caught:
        check_networks(params, tmp_path)
    told = "\n".join(caught.value.faults)
    for name in ("gfm", "again"):
        assert f"pretrain.{name}.student_tap.merged = true: " in told
        assert f"pretrain.{name}.teacher_tap.merged = true: " in told


def _weights(path, name, image_px):
    """A network's tensors as they are published, and a declaration of them."""
    state = {key: value.contiguous() for key, value in timm.create_model(name).state_dict().items()}
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    network = {"architecture": {"name": name, "image_px": image_px}, "weights": path.name, "sha256": digest}
    return state, WEIGHTS | network | HALF


def test_statistics_folded_into_convolutions_are_named_before_any_import(make_params, tmp_path):
    _, declared = _weights(
        tmp_path / "fresh.safetensors", "test_resnet", 64
    )  # an untrained network's means are 0, its variances 1
    with pytest.raises(GfmError, match=r"^teacher\.batch_norm = live: all batch norm means .* give batch_norm: frozen"):
        check_networks(make_params(teacher=declared, pretrain={"recipe": "simmim"}), tmp_path)
    check_networks(make_params(teacher=declared | {"batch_norm": "frozen"}, pretrain={"recipe": "simmim"}), tmp_path)


def test_weights_of_another_network_are_named_and_a_classifier_may_be_there(make_params, tmp_path):
    state, declared = _weights(tmp_path / "w.safetensors", "test_vit", 160)
    check_networks(make_params(teacher=declared, pretrain={"recipe": "simmim"}), tmp_path)
    first = next(key for key in state if key.endswith("qkv.weight"))
    save_file(state | {first: torch.zeros(2, 2), "stray": torch.zeros(1)}, tmp_path / "w.safetensors")
    declared["sha256"] = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    with pytest.raises(GfmError, match=rf"w\.safetensors: .*has unknown stray; has {first} \(2, 2\) instead of"):
        check_networks(make_params(teacher=declared, pretrain={"recipe": "simmim"}), tmp_path)


def test_all_networks_faults_are_told_at_once(make_params, tmp_path):
    encoders = {"a": WEIGHTS, "b": WEIGHTS | {"architecture": {"name": "swin_tony"}, "weights": "gone.safetensors"}}
    with pytest.raises(GfmError) as caught:
        check_networks(make_params(encoders=encoders, pretrain={"recipe": "simmim"}), tmp_path)
    told = [fault.split(":")[0] for fault in caught.value.faults]
    assert told == [
        "encoders.b.architecture", "encoders.a.weights = lost.safetensors", "encoders.b.weights = gone.safetensors"
    ]  # fmt: skip
