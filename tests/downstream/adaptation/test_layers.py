"""The depth of every parameter: stem, blocks, what follows them."""

from __future__ import annotations

import pytest

from gfm.downstream.adaptation.layers import layer_depths
from gfm.errors import GfmError
from gfm.models.backbone import build_backbone


def _depths(architecture, **args):
    return layer_depths(build_backbone(architecture, args, image_px=64, bands=3, seed=0))


def test_a_vit_has_a_stem_blocks_and_a_norm_as_deep_as_the_head():
    depths, head = _depths("test_vit")
    assert depths["pos_embed"] == depths["patch_embed.proj.weight"] == 0
    assert depths["blocks.0.attn.qkv.weight"] == 1
    assert depths["norm.weight"] == head == max(depths.values())


def test_a_swin_merges_patches_at_the_depth_of_the_block_before():
    depths, head = _depths("swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 2), num_heads=(1, 1), window_size=4)
    assert depths["layers.1.downsample.reduction.weight"] == depths["layers.0.blocks.0.norm1.weight"] == 1
    assert depths["layers.1.blocks.1.norm1.weight"] == 3 and head == 4


def test_a_network_without_a_last_norm_has_its_blocks_below_the_head():
    depths, head = _depths("test_resnet")
    assert max(depths.values()) == head - 1


def test_a_network_of_unknown_order_is_one_line():
    with pytest.raises(GfmError, match=r"MetaFormer: .* set finetune.full.layer_decay = 1$"):
        _depths("poolformer_s12")
