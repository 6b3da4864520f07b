"""Bugs that once gave wrong results, or a late failure, without a word; each stays mended."""

from __future__ import annotations

from pathlib import Path

import torch

from gfm.models.backbone import build_backbone, pyramid, pyramid_levels
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard


def test_features_may_be_tapped_at_the_last_stage_where_the_decoder_reads_too() -> None:
    """timm returns a map once however often it is asked for, so a tap at stage 4 stopped a pretraining at its start."""
    model = build_backbone("test_resnet", {}, image_px=64, bands=3, seed=0).eval()
    first, *_, last = pyramid_levels(model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = pyramid(model, [last, first, last], image)
    assert [tuple(m.shape[1:3]) for m in maps] == [
        (level.channels, 64 // level.stride) for level in (last, first, last)
    ]
    assert torch.equal(maps[0], maps[2])


def test_folded_batch_norm_is_frozen_before_anybody_calls_train(tmp_path: Path) -> None:
    """Lightning keeps the modes it finds, so a frozen batch norm that only `train()` froze learnt wrong statistics."""
    model = build_backbone("test_resnet", {}, image_px=32, bands=3, seed=0)
    card = EncoderCard(
        architecture="test_resnet",
        model_args={},
        image_px=32,
        bands=["R", "G", "B"],
        mean=[0.5] * 3,
        std=[0.5] * 3,
        batch_norm="frozen",
        origin="imported",
        licence="MIT",
    )
    save_encoder(tmp_path, model, card)
    encoder = load_encoder(tmp_path, image_px=32, seed=0)
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items() if "running" in key}
    encoder(torch.rand(4, 3, 32, 32))
    after = encoder.backbone.state_dict()
    assert before
    assert all(torch.equal(value, after[key]) for key, value in before.items())
