"""A fine-tuned model as it predicts: on a device, in the precision that it was scored in, of images as they are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gfm.compute import use_device
from gfm.downstream.adapted import AdaptedFile, describe_adapted, load_adapted
from gfm.downstream.data import as_seen
from gfm.downstream.tasks import Batch, TaskModel
from gfm.errors import WeightsError
from gfm.params import Params

_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Predictor:
    """An adapted model, ready."""

    model: TaskModel
    file: AdaptedFile
    seed: int
    device: torch.device
    precision: str
    batch_size: int

    @classmethod
    def load(cls, params: Params, task_name: str, folder: Path, seed: int) -> Predictor:
        """The model of one seed in `models/tasks/TASK/MODEL`, on the device of the parameters; WeightsError."""
        task = params.tasks[task_name]
        file = describe_adapted(folder, seed)
        if file.kind != task.kind:
            raise WeightsError(f"{folder}: made for a {file.kind} task, now {task.kind}; run `gfm finetune` again")
        device = torch.device("cuda" if use_device(params.device) == "gpu" else "cpu")
        model = load_adapted(folder, seed).to(device)
        return cls(model, file, seed, device, task.finetune.precision, task.finetune.batch_size)

    @torch.inference_mode()
    def logits(self, chips: Sequence[Sequence[Pixels]]) -> NDArray[np.float32]:
        """Logits (N, …) of chips, each an image (H, W, bands) of every date, as the test scoring has them.

        WeightsError where one is no finite number.
        """
        found = []
        for start in range(0, len(chips), self.batch_size):
            image = torch.stack([as_seen(chip, self.model.spec) for chip in chips[start : start + self.batch_size]])
            with self._autocast():
                found.append(self.model.predict(Batch(image, torch.empty(0)).to(self.device)).cpu())
        logits: NDArray[np.float32] = torch.cat(found).numpy()
        if not np.isfinite(logits).all():
            raise WeightsError(
                f"{next(iter(self.file.weights))}: gives what is no finite number; run `gfm finetune` again"
            )
        return logits

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _MIXED.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def best_seed(folder: Path) -> int:
    """The seed that scored best on validation, by the primary metric; WeightsError where nothing was fine-tuned."""
    path = folder / "scores.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
        scores = {int(row["seed"]): float(row["score"]) for row in rows if row["metric"] == rows[0]["metric"]}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; run `gfm finetune` first") from None
    return max(scores, key=lambda seed: scores[seed])
