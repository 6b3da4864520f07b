"""Masks: as many blocks as published, drawn per image, and really hidden from the student."""

from __future__ import annotations

import pytest
import torch

from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.masking import block_mask, masked_blocks, spread
from gfm.models.student import MaskedEncoder

SWIN = ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2]})
VIT = ("vit_tiny_patch16_224", {"depth": 4, "embed_dim": 24})
CNN = ("mobilenetv2_035", {})


def _encoder(architecture: str, args: dict) -> Encoder:
    card = EncoderCard(architecture, args, 64, ["R", "G", "B"], [0.0] * 3, [1.0] * 3, "live", "random", "")
    return Encoder(build_backbone(architecture, args, image_px=64, bands=3, seed=0), card, "e")


@pytest.mark.parametrize(("blocks", "ratio", "count"), [(6, 0.6, 22), (3, 0.6, 6), (5, 0.6, 15), (2, 0.01, 1)])
def test_the_share_of_masked_blocks_is_rounded_up_and_no_further(blocks, ratio, count):
    assert masked_blocks(blocks, ratio) == count
    mask = block_mask(7, blocks=blocks, ratio=ratio, generator=torch.Generator().manual_seed(0))
    assert mask.sum(dim=(1, 2)).tolist() == [count] * 7


def test_images_of_a_batch_have_masks_of_their_own_that_a_seed_repeats():
    first, again = (block_mask(8, blocks=6, ratio=0.6, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(mask.flatten().tolist()) for mask in first}) == 8


def test_a_mask_spreads_over_whole_blocks_of_pixels():
    mask = spread(torch.tensor([[[True, False], [False, False]]]), (64, 64))
    assert mask[0, :32, :32].all() and mask.sum() == 32 * 32


@pytest.mark.parametrize("network", [SWIN, VIT, CNN])
def test_the_student_cannot_see_what_is_masked(network):
    student = MaskedEncoder(_encoder(*network)).eval()
    mask = torch.tensor([[[True, False], [True, True]]])
    hidden = spread(mask, (64, 64)).unsqueeze(1)
    image = torch.rand(1, 3, 64, 64)
    other = torch.where(hidden, torch.rand(1, 3, 64, 64), image)
    levels = student.encoder.levels
    seen = [student(picture, mask, levels)[-1] for picture in (image, other, 1 - image)]
    torch.testing.assert_close(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])


def test_tokens_start_as_published():
    assert 0.002 < MaskedEncoder(_encoder(*SWIN)).mask_token.std() < 0.06
    assert MaskedEncoder(_encoder(*CNN)).mask_token.abs().sum() == 0
