"""How good the representation is, seen while training: kNN and a linear probe on labelled images of the collection."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch.nn import functional as F

from gfm.errors import DataError
from gfm.models.encoder import Encoder
from gfm.models.neighbours import NearestNeighbours
from gfm.params import Probe
from gfm.pretraining.between_steps import BetweenSteps
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.data import CropDataset
from gfm.pretraining.features import pooled_features

TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al., CVPR 2018, section 3.4)
RIDGE = 0.1  # penalty of the linear probe, times the number of images
MEASURES = ("knn", "linear")
COLUMNS = ("epoch", "step", *MEASURES)

Features = NDArray[np.float32]
Labels = list[str]


@dataclass(frozen=True, slots=True)
class ProbeData:
    """Labelled images: training rows to learn from, held-out rows of the same classes to test on."""

    train: Rows
    test: Rows

    @classmethod
    def read(cls, probe: Probe, seed: int, key: str) -> ProbeData:
        """The rows of `probe.sources`, at most `probe.images` each; DataError where there is nothing to tell apart."""
        train = _some(read_rows("train", labelled_sources=probe.sources), probe.images, seed)
        known = set(train.labels())
        held_out = read_rows("val", labelled_sources=probe.sources)
        test = _some(held_out.where([label in known for label in held_out.labels()]), probe.images, seed)
        if len(known) < 2 or not len(test):
            raise DataError(
                f"{key}.sources {', '.join(probe.sources)}: {len(known)} classes in the training split and {len(test)} "
                "held-out images of them; name more labelled sources or splits.val_places, or raise splits.val_share"
            )
        return cls(train, test)


class ProbeCallback(BetweenSteps):
    """Probes the encoder as it would be saved: before the first step, every so many epochs, and at the end.

    Features are the mean of the last map over whole images, in eval mode. The first process works, the others wait.
    Training is as it would be without: no weight, statistic or random draw changes.

    Args:
        crops: makes the data set of some rows, whole images.
        encoder: the one that would be saved.
        steps: of the whole training.
        report: gets each row of `rows`, at its step.
    """

    def __init__(
        self,
        probe: Probe,
        data: ProbeData,
        crops: Callable[[Rows], CropDataset],
        encoder: Encoder,
        *,
        batch_size: int,
        steps: int,
        report: Callable[[dict[str, float]], None],
    ) -> None:
        self.probe, self.encoder, self.batch_size, self.steps, self.report = probe, encoder, batch_size, steps, report
        self.train, self.test = crops(data.train), crops(data.test)
        self.labels = data.train.labels(), data.test.labels()
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the student as it starts, the reference for what comes."""
        if trainer.global_step == 0:
            self._probe(trainer, 0)

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe where it is due."""
        epoch, rest = divmod(trainer.global_step, pl_module.steps_per_epoch)
        if rest == 0 and (epoch % self.probe.every_epochs == 0 or trainer.global_step == self.steps):
            self._probe(trainer, epoch)

    def state_dict(self) -> dict[str, Any]:
        """The rows, for checkpoints."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.rows = list(state_dict["rows"])

    def write(self, path: Path) -> None:
        """Write one line a probe."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def results(self) -> dict[str, float]:
        """The accuracies at the end and, as the reference, before the first step if it was probed then."""
        if not self.rows:
            return {}
        last, starts = self.rows[-1], [row for row in self.rows if row["step"] == 0]
        found = {f"probe_{name}": last[name] for name in MEASURES}
        return found | {f"probe_{name}_start": row[name] for row in starts for name in MEASURES}

    def _probe(self, trainer: Trainer, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        train, test = (
            pooled_features(
                self.encoder,
                images,
                batch_size=self.batch_size,
                precision=trainer.precision_plugin.forward_context(),
            ).numpy()
            for images in (self.train, self.test)
        )
        row: dict[str, float] = {
            "epoch": epoch,
            "step": trainer.global_step,
            "knn": knn_accuracy(train, self.labels[0], test, self.labels[1], neighbours=self.probe.neighbours),
            "linear": linear_accuracy(train, self.labels[0], test, self.labels[1]),
        }
        self.rows.append(row)
        self.report(row)


def knn_accuracy(train: Features, labels: Labels, test: Features, truth: Labels, *, neighbours: int) -> float:
    """Share of `test` (M, C) whose nearest rows of `train` (N, C) vote for the right label (see NearestNeighbours)."""
    names = sorted(set(labels))
    targets = F.one_hot(torch.tensor([names.index(label) for label in labels]), len(names))
    voter = NearestNeighbours(torch.from_numpy(train), targets, min(neighbours, len(train)), TEMPERATURE)
    said: list[int] = voter(torch.from_numpy(test)).argmax(dim=1).tolist()
    right = sum(names[one] == label for one, label in zip(said, truth, strict=True))
    return round(right / len(truth), 6)


def linear_accuracy(train: Features, labels: Labels, test: Features, truth: Labels) -> float:
    """Share of `test` (M, C) that a linear classifier on standardised `train` (N, C) gets right.

    The classifier is the ridge regression of the classes' indicators, in closed form: the same on every run.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learner = make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE * len(train), solver="cholesky"))
    return round(float(learner.fit(train.astype(np.float64), labels).score(test.astype(np.float64), truth)), 6)


def _some(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many rows, drawn by seed, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:most]
    keep = np.zeros(len(rows), bool)
    keep[chosen] = True
    return rows.where(keep.tolist())
