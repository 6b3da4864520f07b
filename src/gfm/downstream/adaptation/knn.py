"""Nearest neighbours of pooled features: nothing learns, which shows what the encoder alone knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfm.downstream.adaptation.adaptation import HEAD, Adaptation, Files
from gfm.downstream.adaptation.features import Features, OnFeatures, pooled_features
from gfm.downstream.tasks import Batch, TaskModel
from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.training import Learned, Training
from gfm.errors import GfmError
from gfm.models.neighbours import NearestNeighbours

SCORED = 1024  # images at once


class Knn(Adaptation):
    """The head becomes a bank of the training images' features; the number of neighbours is chosen on validation.

    Images are not flipped or turned: the encoder sees each of them once.
    """

    def prepare(self, model: TaskModel) -> None:
        assert isinstance(model, PooledTask)
        model.encoder.freeze()
        model.head = nn.Identity()  # until there is a bank

    def learn(self, model: TaskModel, training: Training) -> Learned:
        """Fill the bank, choose the number of neighbours (the first of equals), test once."""
        assert isinstance(model, PooledTask)
        parts = pooled_features(model, training)
        count = len(parts["train"])
        possible = [number for number in self.settings.knn.neighbours if number <= count]
        if not possible:
            raise GfmError(
                f"tasks.{model.spec.name}: finetune.knn.neighbours = {self.settings.knn.neighbours}, but there are "
                f"{count} training images; name a number up to {count}"
            )
        targets = _as_columns(parts["train"].targets, len(model.spec.classes))
        best: tuple[float, NearestNeighbours, dict[str, float]] | None = None
        for number in possible:
            bank = NearestNeighbours(parts["train"].features, targets, number, self.settings.knn.temperature)
            model.head = bank
            scores = _scores(model, parts["val"])
            if best is None or scores[model.primary] > best[0]:
                best = scores[model.primary], bank, scores
        assert best is not None
        _, model.head, val = best
        return Learned(
            epoch=0,
            val=val,
            test=_scores(model, parts["test"]),
            history=[],
            samples=count,
            chosen={"neighbours": int(best[1].neighbours)},
        )

    def saved(self, model: TaskModel) -> dict[str, dict[str, Tensor]]:
        assert isinstance(model, PooledTask)
        return {HEAD: model.head.state_dict(prefix="head.")}

    def restore(self, model: TaskModel, files: Files) -> None:
        assert isinstance(model, PooledTask)
        tensors = files[HEAD]
        model.head = NearestNeighbours(
            tensors["head.features"],
            tensors["head.targets"],
            int(tensors["head.neighbours"]),
            self.settings.knn.temperature,
        )
        # As it was saved: normalising once more would move the last digit.
        model.head.load_state_dict({key.removeprefix("head."): value for key, value in tensors.items()})


def _as_columns(targets: Tensor, classes: int) -> Tensor:
    """(N,) class ids or (N, classes) labels -> (N, classes) of 0 and 1."""
    return F.one_hot(targets, classes) if targets.ndim == 1 else targets


def _scores(model: PooledTask, part: Features) -> dict[str, float]:
    learner, scores = OnFeatures(model), model.scores()
    with torch.no_grad():
        for start in range(0, len(part), SCORED):
            batch = Batch(part.features[start : start + SCORED], part.targets[start : start + SCORED])
            scores.update(learner.predict(batch), batch.target)
    return scores.compute()
