"""`gfm check` builds every network without weights and names the key that does not fit."""

from __future__ import annotations

import hashlib

import pytest
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
    told = str(caught.value)
    for name in ("gfm", "again"):
        assert f"pretrain.{name}.student_tap.merged = true: " in told
        assert f"pretrain.{name}.teacher_tap.merged = true: " in told
