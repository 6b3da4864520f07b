"""Every recipe trains to an encoder, from the parameters that name it, and resumes, divides and caches the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gfm.errors import GfmError
from gfm.models.encoder import load_encoder, save_encoder
from gfm.params import DistillPretraining, GfmFastPretraining, GfmPretraining, SimmimContinualPretraining
from gfm.pretraining.run import pretrain
from gfm.pretraining.teacher_cache import FOLDER, TeacherCache
from gfm.tracking.registered_model import EncoderModel

GFM = Path("models/encoders/gfm")
ALIGNED = {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": [8, 8, 4, 2]}
RECIPES = {
    "gfm": {},
    "simmim": {},
    "simmim-continual": {},
    "distill": {},
    "gfm-fast": {"cached_crops": 2, "decoder": {"width": 16, "depth": 1, "heads": 2}},
}


@pytest.fixture
def make(make_params):
    """Parameters with one pretraining of a recipe."""

    def build(recipe: str, parts: dict | None = None, **more: object):
        return make_params(pretrain={"recipe": recipe, **RECIPES[recipe], **more}, **(parts or {}))

    return build


def _weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def _history() -> list[dict[str, float]]:
    lines = (GFM / "history.csv").read_text().splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[1:]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_to_a_finite_loss_and_a_described_encoder(teacher, make, recipe):
    pretrain(make(recipe), "gfm")
    history = _history()
    assert len(history) == 3 and all(abs(row["train_loss"]) < 10 and abs(row["val_loss"]) < 10 for row in history)
    card = json.loads((GFM / "config.json").read_text())["gfm"]
    assert card["parents"] == ([] if recipe == "simmim" else ["teacher"])
    assert (GFM / "reconstructions.png").exists() == (recipe != "distill")


def test_an_encoder_of_gfm_fast_is_loaded_in_the_form_that_was_trained(teacher, make):
    """Windows that are mask units were never shifted; an encoder of the dense recipe shifts them."""
    aligned = {"student": {"architecture": {"name": "swin_tiny_patch4_window7_224", "image_px": 64, "args": ALIGNED}}}
    for recipe, stages in (("gfm-fast", [1]), ("simmim", [])):
        pretrain(make(recipe, parts=aligned), "gfm")
        encoder = load_encoder(GFM, image_px=64, seed=0)
        assert encoder.card.unshifted_stages == stages
        assert (encoder.backbone.layers[0].blocks[1].shift_size == (0, 0)) == bool(stages)
        assert ("drop_shift(model, [1])" in (GFM / "README.md").read_text()) == bool(stages)
        model = EncoderModel()
        model.load_context(SimpleNamespace(artifacts={"encoder": str(GFM)}))
        image = torch.rand(2, 3, 64, 64)
        encoder.eval()
        with torch.inference_mode():
            expected = encoder(image)[-1].mean((2, 3))
        assert model.predict(None, image.numpy()) == pytest.approx(expected.numpy(), abs=1e-5)


def test_masked_image_modelling_alone_needs_no_teacher(folder, make):
    pretrain(make("simmim"), "gfm")
    assert (GFM / "model.safetensors").exists()


def test_the_students_own_choices_have_the_published_defaults():
    gfm = GfmPretraining(recipe="gfm")
    assert (gfm.alpha, gfm.masking.unit, gfm.masking.ratio, gfm.teacher_px) == (1.0, 32, 0.6, 224)
    assert (gfm.student_tap.stage, gfm.student_tap.merged, gfm.cached_crops, gfm.start) == (3, True, 0, "random")
    assert SimmimContinualPretraining(recipe="simmim-continual").start == "teacher"
    assert DistillPretraining(recipe="distill").cached_crops == 0
    assert GfmFastPretraining(recipe="gfm-fast").cached_crops == 8


@pytest.mark.parametrize("recipe", ["distill", "gfm-fast"])
def test_a_killed_training_of_cached_crops_resumes_to_the_same_encoder(teacher, make, killed_at, recipe):
    params = make(recipe, checkpoint_minutes=1e-9, cached_crops=2)
    pretrain(params, "gfm")
    whole = _weights()
    killed_at(params, 6)
    pretrain(params, "gfm")
    again = _weights()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == 6


def test_cached_features_are_those_that_the_teacher_gives_while_training(teacher, make):
    pretrain(make("distill", epochs=1), "gfm")
    asked = _history()
    pretrain(make("distill", epochs=1, cached_crops=1), "gfm")
    assert _history()[0]["train_loss"] == pytest.approx(asked[0]["train_loss"], abs=2e-3)
    assert _history()[0]["val_loss"] == pytest.approx(asked[0]["val_loss"], abs=2e-3)


def test_the_cache_is_computed_once_and_again_for_another_teacher(teacher, make, monkeypatch, capsys):
    params = make("distill", cached_crops=2)
    pretrain(params, "gfm")
    assert capsys.readouterr().out.count("teacher features of") == 2, "training and validation crops"
    files = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*.arrow")}
    pretrain(params, "gfm")
    assert "teacher features of" not in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*.arrow")}

    other = load_encoder(teacher, image_px=64, seed=0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.01
    save_encoder(teacher, other.backbone, other.card)
    pretrain(params, "gfm")
    assert capsys.readouterr().out.count("teacher features of") == 2
    assert not any(path.exists() for path in files), "features of the old teacher are gone"


def test_a_cache_block_that_is_broken_is_named(teacher, make):
    params = make("distill", cached_crops=2)
    pretrain(params, "gfm")
    block = next(iter(FOLDER.rglob("0/*.arrow")))
    block.write_bytes(b"broken")
    with pytest.raises(GfmError, match=r"000000\.arrow: cannot be read .*; remove it"):
        TeacherCache(block.parents[1]).feature(0, 0)


def test_parts_of_a_batch_give_the_loss_curve_of_the_whole(teacher, make, without_drop_path):
    pretrain(make("gfm", parts=without_drop_path), "gfm")
    whole = _history()
    pretrain(make("gfm", parts=without_drop_path, accumulate=2), "gfm")
    for one, other in zip(whole, _history(), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
        assert other["step"] == one["step"]


def test_checkpoints_by_step_and_the_last_few_stay(teacher, make, monkeypatch):
    from gfm.pretraining.trainer import TimedCheckpoint

    monkeypatch.setattr(TimedCheckpoint, "remove", lambda self: None)
    pretrain(make("gfm", checkpoint_steps=3, keep_checkpoints=2), "gfm")
    assert [path.name for path in sorted(Path("checkpoints/gfm").glob("*.ckpt"))] == [
        "step-000000006.ckpt",
        "step-000000009.ckpt",
    ]


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(teacher, make, without_drop_path):
    """One process with a batch of 4, and two with 2 each (gloo): the same curve to 1e-4."""
    params = make("gfm", parts=without_drop_path)
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", exclude_unset=True)))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [str(Path(sys.executable).parent / "gfm"), "pretrain", "gfm"]
    subprocess.run(command, env=env, check=True)
    alone = _history()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    subprocess.run([*launch, *command], env=env, check=True)
    for one, other in zip(alone, _history(), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=1e-4)
