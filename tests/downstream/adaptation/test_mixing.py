"""Mixed batches: what is blended, what labels become."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfm.downstream.adaptation.mixing import mixed
from gfm.downstream.tasks import Batch
from gfm.params import FullFinetuning


def _batch() -> Batch:
    image = torch.stack([torch.full((1, 3, 8, 8), value, dtype=torch.uint8) for value in (0, 50, 100, 200)])
    return Batch(image, torch.tensor([0, 1, 2, 2]))


def test_nothing_asked_for_nothing_changed():
    batch = _batch()
    assert mixed(batch, FullFinetuning(), 3) is batch


def test_smoothing_moves_a_share_of_every_label_to_all_classes():
    found = mixed(_batch(), FullFinetuning(label_smoothing=0.3), 3).target
    assert found[0].tolist() == pytest.approx([0.8, 0.1, 0.1])


@given(seed=st.integers(0, 2**20))
def test_images_and_labels_are_blended_alike(seed):
    np.random.seed(seed)
    found = mixed(_batch(), FullFinetuning(mixup=0.8), 3)
    assert found.image.dtype == torch.uint8 and found.image.shape == (4, 1, 3, 8, 8)
    share = found.target[0, 0].item()  # of the first image, which is black; the rest is the last one's
    assert float(found.image[0, 0, 0, 0, 0]) == pytest.approx((1 - share) * 200, abs=1)
    assert torch.allclose(found.target.sum(dim=1), torch.ones(4))


@given(seed=st.integers(0, 2**20))
def test_a_box_counts_by_its_area(seed):
    np.random.seed(seed)
    found = mixed(_batch(), FullFinetuning(cutmix=1.0), 3)
    kept = (found.image[0, 0, 0] == 0).float().mean().item()
    assert found.target[0, 0].item() == pytest.approx(kept, abs=1e-6)


def test_many_labels_are_mixed_too():
    np.random.seed(0)
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = mixed(_batch()._replace(target=target), FullFinetuning(mixup=0.8), 2).target
    assert found[0, 0] + found[0, 1] == pytest.approx(1)
