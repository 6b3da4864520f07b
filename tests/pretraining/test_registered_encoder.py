"""The project's own registered versions become encoders that `models` can name, with their origin."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfm.errors import GfmError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.pretraining.published_encoder import make_encoder
from gfm.tracking.registry import register_encoder
from gfm.tracking.runs import child_run

NAME, ARGS = "swin_tiny_patch4_window7_224", {
    "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2
}  # fmt: skip
BEFORE = Path("models/encoders/before")


@pytest.fixture
def registered(folder, make_params):
    """Version 1 of gfm-encoder, the challenger; returns parameters that declare it, the run's id and its weights."""
    params = make_params(tracking={}, encoders={"before": {"kind": "registered", "version": 1}})
    own = {"commit": "abc", "seed": 3, "data": {"manifest": "m1"}}
    energy = {"kwh": 0.2, "kg_co2eq": 0.1, "seconds": 5.0, "method": "measured for this test"}
    about = {"batch_norm": "live", "origin": "pretrained", "licence": "MIT", "provenance": own, "energy": energy}
    card = EncoderCard(NAME, ARGS, 64, ["R", "G", "B"], [0.4] * 3, [0.2] * 3, **about)
    made = Path("models/encoders/gfm")
    save_encoder(made, build_backbone(NAME, ARGS, image_px=64, bands=3, seed=9), card)
    with child_run(params, "gfm", "pretrain", {}) as run:
        assert register_encoder(params, run, made) == "1"
    weights = load_file(made / "model.safetensors")
    shutil.rmtree(made)
    return params, run.run_id, weights


@pytest.mark.slow
def test_a_registered_version_comes_back_whole_with_the_run_and_energy_that_made_it(registered, make_params):
    params, run_id, weights = registered
    make_encoder(params, "before")
    theirs = load_file(BEFORE / "model.safetensors")
    assert theirs.keys() == weights.keys() and all(torch.equal(theirs[key], weights[key]) for key in weights)
    record = json.loads((BEFORE / "run.json").read_text())
    assert record["run_id"] == run_id and record["energy"]["kwh"] == 0.2 and record["kind"] == "registered encoder"
    card = load_encoder(BEFORE, image_px=64, seed=0).card
    assert card.provenance["registered_as"] == "gfm-encoder version 1" and card.provenance["commit"] == "abc"
    again = make_params(tracking={}, encoders={"before": {"kind": "registered", "version": "challenger"}})
    make_encoder(again, "before")
    told = json.loads((BEFORE / "config.json").read_text())["gfm"]["provenance"]["registered_as"]
    assert told == "gfm-encoder version 1, then its challenger"
    for version, message in (
        (7, "gfm-encoder has no version 7; it has 1"),
        ("champion", "gfm-encoder has no champion"),
    ):
        wrong = make_params(tracking={}, encoders={"before": {"kind": "registered", "version": version}})
        with pytest.raises(GfmError, match=message):
            make_encoder(wrong, "before")
    other = make_params(tracking={}, encoders={"before": {"kind": "registered", "version": 1, "model": "else"}})
    with pytest.raises(GfmError, match="else has no version 1"):
        make_encoder(other, "before")
    shutil.rmtree("mlruns")
    with pytest.raises(GfmError, match="gfm-encoder version 1: its files cannot be had"):
        make_encoder(params, "before")
    assert (BEFORE / "model.safetensors").exists()  # as it was


def test_without_a_registry_the_fix_is_named(folder, make_params):
    declared = {"before": {"kind": "registered", "version": 1}}
    with pytest.raises(GfmError, match=r"tracking\.uri = none: no model is registered"):
        make_encoder(make_params(tracking={"uri": "none"}, encoders=declared), "before")


@pytest.mark.parametrize("version", [0, "latest", 1.5])
def test_a_version_is_a_number_or_an_alias(make_params, version):
    with pytest.raises(ValueError, match=r"encoders\.before"):
        make_params(encoders={"before": {"kind": "registered", "version": version}})
