"""Masks: as many blocks as published, drawn per image, and really hidden from the student."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.errors import GfmError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.masking import (
    block_mask,
    masked_blocks,
    masked_units,
    paste_units,
    spread,
    unit_pixels,
    visible_units,
)
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


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), blocks=st.integers(1, 7), ratio=st.floats(0, 1))
def test_every_unit_is_listed_once_in_order_as_visible_or_masked(seed, blocks, ratio):
    mask = block_mask(3, blocks=blocks, ratio=ratio, generator=torch.Generator().manual_seed(seed))
    count = masked_blocks(blocks, ratio)
    visible, masked = visible_units(mask, blocks**2 - count), masked_units(mask, count)
    for row, seen, hidden in zip(mask.flatten(1).tolist(), visible.tolist(), masked.tolist(), strict=True):
        assert seen == [unit for unit, is_masked in enumerate(row) if not is_masked]
        assert hidden == [unit for unit, is_masked in enumerate(row) if is_masked]


@pytest.mark.parametrize("units", [visible_units, masked_units])
def test_masks_of_unequal_counts_are_refused(units):
    with pytest.raises(GfmError, match=r"rows with \[1, 3\] units where 3"):
        units(torch.tensor([[[True, False], [False, False]], [[True, True], [True, False]]]), 3)


def test_the_pixels_of_units_are_cut_out_and_pasted_back():
    image, units = torch.randn(2, 3, 8, 12), torch.tensor([[0, 4], [2, 5]])
    pixels = unit_pixels(image, units, 4)
    assert torch.equal(pixels[0, 1], image[0, :, 4:, 4:8]) and torch.equal(pixels[1, 0], image[1, :, :4, 8:])
    pasted = paste_units(torch.zeros_like(image), units, pixels)
    hidden = torch.ones(2, 6, dtype=torch.bool).scatter(1, units, False).view(2, 2, 3)
    assert torch.equal(pasted, image.masked_fill(spread(hidden, (8, 12)).unsqueeze(1), 0))
