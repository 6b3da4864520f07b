"""The losses of every epoch: gathered on the device, written as history.csv, kept in checkpoints."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Part = Literal["train", "val"]
Row = dict[str, float | int | None]


def numbers(row: Row) -> dict[str, float]:
    """What of a row is a number to record: everything but the empty fields."""
    return {key: float(value) for key, value in row.items() if value is not None}


class History:
    """Means of named losses over each epoch's training steps and over validation."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.rows: list[Row] = []
        self._sums: dict[Part, Tensor | None] = {"train": None, "val": None}  # sums of the losses, then the count
        self._device = torch.device("cpu")

    def add(self, part: Part, losses: Sequence[Tensor], count: int) -> None:
        """Add a batch of `count` samples with these mean losses; nothing is read from the device."""
        values = torch.stack([loss.detach().float() for loss in losses] + [torch.ones((), device=losses[0].device)])
        sums = self._sums[part]
        self._device = values.device
        self._sums[part] = values * count if sums is None else sums.to(values.device) + values * count

    def close(self, *, epoch: int, step: int, lr: float) -> None:
        """End an epoch: its row holds the training means since the last one."""
        row: Row = {"epoch": epoch, "step": step, "lr": lr}
        row |= {f"train_{name}": value for name, value in zip(self.names, self._means("train"), strict=True)}
        row |= {f"val_{name}": None for name in self.names}
        self.rows.append(row)

    def close_validation(self) -> None:
        """Put the validation means into the last row."""
        means = self._means("val")
        self.rows[-1] |= {f"val_{name}": value for name, value in zip(self.names, means, strict=True)}

    def write(self, path: Path) -> None:
        """Write one line an epoch; an empty field means that there was nothing to validate on."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep; every process must call it."""
        return {"rows": self.rows, "train": self._over_processes(self._sums["train"])}

    def restore(self, state: dict[str, Any], *, first: bool = True) -> None:
        """Continue from a checkpoint; the `first` process alone has what all had added up."""
        self.rows = list(state["rows"])
        self._sums = {"train": state["train"] if first else None, "val": None}

    def _means(self, part: Part) -> list[float | None]:
        sums, self._sums[part] = self._over_processes(self._sums[part]), None
        if sums is None or sums[-1] == 0:
            return [None] * len(self.names)
        values = sums.tolist()
        return [round(value / values[-1], 6) for value in values[:-1]]

    def _over_processes(self, sums: Tensor | None) -> Tensor | None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return sums
        none = torch.zeros(len(self.names) + 1, device=self._device)  # fewer batches than processes
        sums = none if sums is None else sums.clone()
        torch.distributed.all_reduce(sums)
        return sums
