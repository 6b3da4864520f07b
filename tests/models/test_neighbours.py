"""The vote of the nearest neighbours, checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gfm.models.neighbours import NearestNeighbours, nearest

# Along x, along y, between them; lengths do not count.
FEATURES = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
ONE_CLASS_EACH = torch.eye(3)


def test_neighbours_are_the_nearest_by_angle_not_by_length():
    gallery = torch.nn.functional.normalize(FEATURES, dim=1)
    cosines, which = nearest(torch.tensor([[7.0, 0.0]]), gallery, 2)
    assert which.tolist() == [[0, 2]]
    assert cosines.tolist() == [[1.0, pytest.approx(math.sqrt(0.5))]]
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, 5)[1].shape == (1, 3)


def test_the_nearest_counts_alone():
    bank = NearestNeighbours(FEATURES, ONE_CLASS_EACH, neighbours=1, temperature=0.07)
    asked = torch.tensor([[9.0, 1.0], [0.1, 1.0], [1.0, 1.1]])
    assert bank(asked).argmax(dim=1).tolist() == [0, 1, 2]


def test_votes_are_weighted_by_the_exponential_of_cosine_over_temperature():
    bank = NearestNeighbours(FEATURES, torch.tensor([[1, 0], [0, 1], [1, 1]]), neighbours=2, temperature=0.5)
    # Asked along x: cosines 1, 0 and 1/sqrt 2; the first and the third vote.
    first, third = math.exp(1 / 0.5), math.exp(math.sqrt(0.5) / 0.5)
    share = third / (first + third)
    shares = bank(torch.tensor([[1.0, 0.0]])).sigmoid()[0]
    assert shares[0].item() == pytest.approx(1, abs=1e-5)
    assert shares[1].item() == pytest.approx(share, rel=1e-5)


def test_a_label_that_most_of_the_weight_has_is_above_zero():
    targets = torch.tensor([[1, 0], [1, 0], [0, 1]])
    bank = NearestNeighbours(torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1]]), targets, 3, temperature=0.07)
    assert (bank(torch.tensor([[1.0, 0.0]])) > 0).tolist() == [[True, False]]


def test_more_neighbours_than_images_is_a_mistake():
    with pytest.raises(ValueError, match="4 neighbours among 3 images"):
        NearestNeighbours(FEATURES, ONE_CLASS_EACH, 4, 0.07)
