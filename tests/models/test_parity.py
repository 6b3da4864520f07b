"""The published method, to numerical precision: tensors and schedules computed with the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.gfm import StudentTeacher
from gfm.models.published import from_published, own_name
from gfm.params import Schedule
from gfm.pretraining.optimiser import learning_rate, split_by_decay

PARITY = Path(__file__).parents[2] / ".." / "shared" / "parity"
pytestmark = [
    pytest.mark.field,
    pytest.mark.skipif(not PARITY.exists(), reason=f"{PARITY} is not there"),
]


def _encoder(px: int, window: int) -> Encoder:
    args = {
        "embed_dim": 16,
        "depths": [2, 2, 2, 2],
        "num_heads": [1, 2, 4, 8],
        "window_size": window,
        "drop_path_rate": 0.0,
    }
    name = "swin_base_patch4_window7_224"
    card = EncoderCard(name, args, px, ["R", "G", "B"], [0.0] * 3, [1.0] * 3, "live", "random", "")
    return Encoder(build_backbone(name, args, image_px=px, bands=3, seed=0), card, "tiny")


def _tiny() -> StudentTeacher:
    tap = (3, True)
    return StudentTeacher(
        _encoder(192, 6),
        _encoder(224, 7),
        student_tap=tap,
        teacher_tap=tap,
        teacher_px=224,
        alpha=1.0,
        seed=0,
        name="gfm",
    )


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_every_tensor_loss_and_gradient_equals_the_published_code():
    from safetensors.torch import load_file

    stored = load_file(PARITY / "gfm_reference_tiny.safetensors")
    model = _tiny().train()
    own, dropped = from_published({k.removeprefix("state/"): v for k, v in stored.items() if k.startswith("state/")})
    model.load_state_dict(own, strict=True)
    assert len(dropped) == 22 and all(key.endswith(("relative_position_index", "attn_mask")) for key in dropped)

    out = model(stored["input/image"], stored["input/mask"].bool())
    out.losses.total.backward()

    found = {
        "encoder_map": out.encoder_map,
        "student_feature": out.student_feature,
        "teacher_feature": out.teacher_feature,
        "reconstruction": out.reconstruction,
        "loss": out.losses.total,
        "loss_mim": out.losses.mim,
        "loss_feat": out.losses.distillation,
        "grad_norm": torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1e9),
    }
    wrong = {name: _relative(value.detach(), stored[f"expected/{name}"]) for name, value in found.items()}
    parameters = dict(model.named_parameters())
    gradients = [key.removeprefix("grad/") for key in stored if key.startswith("grad/")]
    wrong |= {key: _relative(parameters[own_name(key)].grad, stored[f"grad/{key}"]) for key in gradients}
    assert len(gradients) == 8
    assert {name: error for name, error in wrong.items() if error > 1e-4} == {}
    assert not any(parameter.grad is not None for parameter in model.teacher.parameters())


def test_the_learning_rate_of_every_stored_step_equals_the_published_schedule():
    stored = json.loads((PARITY / "gfm_reference_schedule.json").read_text())["pretrain"]
    rate = learning_rate(
        Schedule(),
        batch_size=stored["global_batch"],
        epochs=stored["epochs"],
        steps_per_epoch=stored["steps_per_epoch"],
    )
    found = {step: rate(int(step)) for step in stored["lr_at_step"]}
    assert found == pytest.approx(stored["lr_at_step"], rel=1e-9)


def test_the_same_parameters_are_decayed_as_in_the_published_code():
    stored = json.loads((PARITY / "gfm_reference_schedule.json").read_text())["pretrain"]
    model = StudentTeacher(
        _encoder_of_depths([2, 2, 6, 2]),
        _encoder(224, 7),
        student_tap=(3, True),
        teacher_tap=(3, True),
        teacher_px=224,
        alpha=1.0,
        seed=0,
        name="gfm",
    )
    decayed, undecayed = split_by_decay(model)
    assert set(decayed) == {own_name(name) for name in stored["decay"]}
    assert set(undecayed) == {own_name(name) for name in stored["no_decay"]}


def _encoder_of_depths(depths: list[int]) -> Encoder:
    args = {"embed_dim": 16, "depths": depths, "num_heads": [1, 2, 4, 8], "window_size": 6}
    name = "swin_base_patch4_window7_224"
    card = EncoderCard(name, args, 192, ["R", "G", "B"], [0.0] * 3, [1.0] * 3, "live", "random", "")
    return Encoder(build_backbone(name, args, image_px=192, bands=3, seed=0), card, "tiny")
