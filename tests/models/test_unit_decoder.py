"""The decoder over units: it learns from visible units, knows where units lie, and is scored as the published one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.errors import GfmError
from gfm.models.masking import block_mask, masked_units, paste_units, unit_pixels
from gfm.models.simmim import masked_l1
from gfm.models.unit_decoder import UnitDecoder, masked_units_l1


def _decoder(**changes: int) -> UnitDecoder:
    torch.manual_seed(0)
    given = {"unit_px": 8, "bands": 3, "width": 16, "depth": 2, "heads": 2} | changes
    return UnitDecoder(12, units=(3, 4), **given)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), ratio=st.floats(0.05, 0.95), bands=st.integers(1, 4))
def test_the_loss_is_the_published_one(seed, ratio, bands):
    generator = torch.Generator().manual_seed(seed)
    mask = block_mask(3, blocks=4, ratio=ratio, generator=generator)
    masked = masked_units(mask, int(mask[0].sum()))
    reconstruction, target = (torch.randn(3, bands, 32, 32, generator=generator) for _ in range(2))
    predicted = unit_pixels(reconstruction, masked, 8).flatten(2)
    torch.testing.assert_close(
        masked_units_l1(predicted, target, masked, 8), masked_l1(reconstruction, target, mask), rtol=1e-6, atol=0
    )


def test_predicted_units_have_the_layout_of_the_published_decoder():
    """One linear layer and PixelShuffle give the same picture, so weights of either mean the same."""
    values = torch.randn(2, 4, 4 * 3 * 8 * 8).view(2, 4, -1, 192)[:, :, 0]
    shuffled = torch.nn.PixelShuffle(8)(values.transpose(1, 2).reshape(2, 192, 2, 2))
    everywhere = torch.arange(4).expand(2, -1)
    pasted = paste_units(torch.zeros(2, 3, 16, 16), everywhere, values.view(2, 4, 3, 8, 8))
    torch.testing.assert_close(pasted, shuffled)


def test_every_masked_unit_is_predicted_from_the_visible_ones():
    decoder = _decoder()
    visible, masked = torch.tensor([[0, 5, 6], [1, 2, 11]]), torch.tensor([[1, 2], [0, 5]])
    features = torch.randn(2, 3, 12, requires_grad=True)
    predicted = decoder(features, visible, masked)
    assert predicted.shape == (2, 2, 3 * 64)
    predicted[0, 0].sum().backward()
    assert (features.grad[0].abs().sum(dim=1) > 0).all() and features.grad[1].abs().sum() == 0


def test_what_a_unit_becomes_depends_on_where_units_lie_and_not_on_their_order():
    decoder = _decoder().eval()
    features, order = torch.randn(1, 3, 12), [2, 0, 1]
    visible, masked = torch.tensor([[0, 5, 6]]), torch.tensor([[1, 2]])
    predicted = decoder(features, visible, masked)
    torch.testing.assert_close(decoder(features[:, order], visible[:, order], masked), predicted)
    torch.testing.assert_close(decoder(features, visible, masked.flip(1)), predicted.flip(1))
    assert not torch.allclose(decoder(features, visible + 1, masked), predicted, atol=1e-4)


def test_widths_that_cannot_be_are_named():
    with pytest.raises(GfmError, match=r"decoder width 18: .* use 24"):
        _decoder(width=18)
