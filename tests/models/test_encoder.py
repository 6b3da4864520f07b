"""An encoder on disk: strict when read, the same in timm, any image size, frozen where it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import DropPath

from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard, write_card

SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}

CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}


def _card(architecture: str, args: dict, px: int, **fields: object) -> EncoderCard:
    own = {"batch_norm": "live", "origin": "pretrained", "licence": "CC0"} | fields
    return EncoderCard(architecture, args, px, ["R", "G", "B"], [0.4, 0.5, 0.6], [0.2, 0.3, 0.4], **own)


@pytest.fixture
def swin(tmp_path: Path) -> Path:
    """A finished tiny Swin for 96 px."""
    card = _card("swin_tiny_patch4_window7_224", SWIN, 96)
    save_encoder(tmp_path / "swin", build_backbone(card.architecture, SWIN, image_px=96, bands=3, seed=1), card)
    return tmp_path / "swin"


def test_weights_that_were_exchanged_behind_the_card_are_refused(swin):
    state = load_file(swin / "model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, swin / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors: not the weights that .*config\.json names"):
        load_encoder(swin, image_px=96, seed=0)


@pytest.mark.parametrize(
    ("architecture", "args", "px", "strides", "channels"),
    [
        ("swin_tiny_patch4_window7_224", SWIN, 96, (4, 8, 16, 32), (8, 16, 32, 64)),
        ("swin_tiny_patch4_window7_224", SWIN, 160, (4, 8, 16, 32), (8, 16, 32, 64)),
        ("mobilenetv2_035", {}, 96, (4, 8, 16, 32), (8, 16, 32, 112)),
        ("mobilenetv2_035", {}, 160, (4, 8, 16, 32), (8, 16, 32, 112)),
        ("swinv2_tiny_window8_256", SWIN, 96, (4, 8, 16, 32), (8, 16, 32, 64)),
        ("swinv2_tiny_window8_256", SWIN, 192, (4, 8, 16, 32), (8, 16, 32, 64)),
        ("convnext_atto", CONVNEXT, 96, (4, 8, 16, 32), (8, 16, 24, 32)),
        ("resnet18", {}, 64, (4, 8, 16, 32), (64, 128, 256, 512)),
        ("vit_tiny_patch16_224", {"depth": 8, "embed_dim": 24}, 96, (16,) * 4, (24,) * 4),
        ("vit_tiny_patch16_224", {"depth": 8, "embed_dim": 24}, 128, (16,) * 4, (24,) * 4),
    ],
)
def test_every_kind_of_network_gives_a_pyramid_at_any_size(tmp_path, architecture, args, px, strides, channels):
    card = _card(architecture, args, 96)
    save_encoder(tmp_path / "e", build_backbone(architecture, args, image_px=96, bands=3, seed=0), card)
    encoder = load_encoder(tmp_path / "e", image_px=px, seed=0).eval()
    maps = encoder(torch.rand(2, 3, px, px))
    assert (encoder.strides, encoder.channels, encoder.bands) == (strides, channels, ["R", "G", "B"])
    assert [tuple(m.shape) for m in maps] == [(2, c, px // s, px // s) for c, s in zip(channels, strides, strict=True)]


def test_timm_opens_the_folder_and_computes_the_same(swin):
    plain = timm.create_model(f"local-dir:{swin}", pretrained=True, num_classes=0).eval()
    image = torch.rand(1, 3, 96, 96)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    pooled = load_encoder(swin, image_px=96, seed=5).eval()(image)[-1].mean(dim=(2, 3))
    torch.testing.assert_close(pooled, plain((image - mean) / std))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), "lacks norm.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "has unknown extra"),
        (lambda s: s.update({"norm.weight": torch.zeros(3)}), r"has norm.weight \(3,\) instead of \(64,\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(swin, change, message):
    state = load_file(swin / "model.safetensors")
    change(state)
    save_file(state, swin / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_encoder(swin, image_px=96, seed=0)


def test_an_encoder_without_its_weights_is_never_silently_random(swin):
    (swin / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file"):
        load_encoder(swin, image_px=96, seed=0)


def test_a_truncated_weights_file_is_an_error_that_names_it(swin):
    data = (swin / "model.safetensors").read_bytes()
    (swin / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"model\.safetensors: not a readable safetensors file"):
        load_encoder(swin, image_px=96, seed=0)


def test_a_missing_encoder_says_which_command_makes_it(tmp_path):
    with pytest.raises(WeightsError, match="run `gfm pretrain gfm` first"):
        load_encoder(tmp_path / "gfm", image_px=96, seed=0)


def test_an_untrained_encoder_depends_on_its_seed_alone(tmp_path):
    write_card(tmp_path / "random", _card("swin_tiny_patch4_window7_224", SWIN, 96, origin="random"))
    torch.manual_seed(1)
    first = load_encoder(tmp_path / "random", image_px=96, seed=3).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = load_encoder(tmp_path / "random", image_px=96, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    other = load_encoder(tmp_path / "random", image_px=96, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_frozen_batch_norm_keeps_its_statistics_while_its_scale_learns(tmp_path):
    card = _card("mobilenetv2_035", {}, 64, batch_norm="frozen")
    save_encoder(tmp_path / "e", build_backbone("mobilenetv2_035", {}, image_px=64, bands=3, seed=0), card)
    encoder = load_encoder(tmp_path / "e", image_px=64, seed=0).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items() if "running" in key}
    encoder(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    after = encoder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert encoder.backbone.bn1.weight.grad is not None and encoder.backbone.blocks.training


def test_an_architecture_that_timm_does_not_have_is_named(tmp_path):
    write_card(tmp_path / "x", _card("swim_tiny", {}, 96, origin="random"))
    with pytest.raises(WeightsError, match="architecture swim_tiny"):
        load_encoder(tmp_path / "x", image_px=96, seed=0)


def test_a_card_is_written_without_importing_torch():
    code = "import gfm.models.encoder_file, gfm.pretraining.untrained, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_card_with_too_few_means_is_refused(swin):
    config = json.loads((swin / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.5]
    (swin / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="3 bands, but 1 means and 3 standard deviations"):
        load_encoder(swin, image_px=96, seed=0)


def test_a_frozen_encoder_stays_in_evaluation_mode(swin: Path) -> None:
    encoder = load_encoder(swin, image_px=96, seed=0)
    encoder.freeze()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_drop_path_can_be_asked_for(swin: Path) -> None:
    plain, dropped = (load_encoder(swin, image_px=96, seed=0, drop_path=rate) for rate in (0.0, 0.2))
    rates = [module.drop_prob for module in dropped.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)
    assert not any(isinstance(module, DropPath) for module in plain.modules())
    assert plain.state_dict().keys() == dropped.state_dict().keys()
