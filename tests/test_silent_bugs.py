"""Bugs that once gave wrong results, or a late failure, without a word; each stays mended."""

from __future__ import annotations

import torch

from gfm.models.backbone import build_backbone, pyramid, pyramid_levels


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
