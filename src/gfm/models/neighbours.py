"""Nearest neighbours among features, and classification by them: no training, only a bank of features and labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_SHARE = 1e-6  # a class without a vote has finite logits


def nearest(queries: Tensor, gallery: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and indices (Q, count) of the rows of a `gallery` (N, C) of unit length most like `queries` (Q, C)."""
    found = (F.normalize(queries.float(), dim=1) @ gallery.T).topk(min(count, len(gallery)), dim=1)
    return found.values, found.indices


class NearestNeighbours(nn.Module):
    """The k training features most alike by cosine vote with weights exp(cosine / temperature).

    Wu et al. 2018 (arXiv 1805.01978, section 3.4), as DINO scores its features. forward takes features (B, C) and
    returns the log odds of each class's share of the weights, (B, classes): above 0 a class has more than half.

    Args:
        features: (N, C) of the training images.
        targets: (N, classes), 1 where the image has the class, else 0.
        neighbours: how many vote, at most N.
        temperature: small values let only the nearest count.
    """

    features: Tensor
    targets: Tensor
    neighbours: Tensor

    def __init__(self, features: Tensor, targets: Tensor, neighbours: int, temperature: float) -> None:
        super().__init__()
        if not 1 <= neighbours <= len(features):
            raise ValueError(f"{neighbours} neighbours among {len(features)} images")
        self.temperature = temperature
        self.register_buffer("features", F.normalize(features.float(), dim=1))
        self.register_buffer("targets", targets.to(torch.uint8))
        self.register_buffer("neighbours", torch.tensor(neighbours))

    def forward(self, features: Tensor) -> Tensor:
        """Log odds (B, classes) for features (B, C)."""
        cosines, which = nearest(features, self.features, int(self.neighbours))
        votes = (cosines / self.temperature).softmax(dim=1)
        shares = torch.einsum("bk,bkc->bc", votes, self.targets[which].float())
        return shares.logit(eps=LEAST_SHARE)
