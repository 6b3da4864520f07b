"""One model's work on one task: its data in the encoder's bands, its shapes, the weights of its classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfm.compute import use_device
from gfm.downstream.bands import matching_bands
from gfm.downstream.classes import IGNORED, positive_id
from gfm.downstream.data import Chips, fits_memory
from gfm.downstream.formats import open_format
from gfm.downstream.split import PARTS, Part
from gfm.downstream.table import TaskIndex
from gfm.downstream.tasks import TaskSpec
from gfm.downstream.trained_on import TrainedOn
from gfm.downstream.unchanged import check_unchanged
from gfm.errors import DataError
from gfm.layout import encoder_folder, task_index
from gfm.models.encoder_file import EncoderCard, read_card
from gfm.params import (
    CLASS_MAPS,
    ClassMap,
    DatedFolders,
    Format,
    GeoBench2Samples,
    ImageTargets,
    LabelsTable,
    Params,
    SpaceNet2,
    Task,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one task, with its data."""

    task_name: str
    model_name: str
    task: Task
    index: TaskIndex
    spec: TaskSpec
    parts: dict[Part, Chips]
    class_weights: Tensor | None
    accelerator: str
    card: EncoderCard
    # What the encoder made of each part, by the seed that it was drawn from: shared by trainings that leave it frozen.
    encoded: dict[int | None, dict[Part, Any]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.task_name}, {self.model_name}"

    @property
    def trained_on(self) -> TrainedOn:
        """What whoever feeds the model later must know of its images."""
        sizes = [row.sample.window[2:] for row in self.index.rows]
        return TrainedOn.of(self.parts["train"].bands, self.task.data.imagery, sizes)

    @property
    def data(self) -> dict[str, Any]:
        """The version of the collection that the encoder saw; empty for one that never saw it."""
        return dict(self.card.provenance.get("data") or {})

    def encoded_with(self, seed: int) -> dict[Part, Any]:
        """What the encoder of this seed made of each part so far."""
        drawn = self.card.origin == "random"  # anew for every seed
        return self.encoded.setdefault(seed if drawn else None, {})


def prepare(params: Params, task_name: str, model_name: str, index: TaskIndex) -> Job:
    """One model's work on one task; GfmError where its index is another kind's or of files that have changed since, or
    where a band or encoder is missing.
    """
    task = params.tasks[task_name]
    if index.kind != task.kind:
        raise DataError(
            f"{task_index(task_name)}: made for a {index.kind} task, now {task.kind}; run `gfm index` again"
        )
    if task.kind in CLASS_MAPS and isinstance(task.data, ClassMap) and [*task.data.classes] != index.classes:
        raise DataError(
            f"{task_index(task_name)}: made for the classes {', '.join(index.classes)}, now "
            f"{', '.join(task.data.classes)}; run `gfm index` again"
        )
    most = max(len(row.sample.inputs) for row in index.rows)
    if task.dates is not None and most > task.dates.number:
        raise DataError(
            f"{task_index(task_name)}: made for {most} dates a sample, now {task.dates.number}; run `gfm index` again"
        )
    card = read_card(encoder_folder(model_name))
    spec = _spec(task_name, task, index, bands=len(card.bands))
    data = open_format(task_name, task, Path(params.paths.raw))
    check_unchanged(data, index, task_index(task_name))
    bands = matching_bands(params, task_name, card.bands, index.collection_um, card.wavelengths_um)
    held = fits_memory(spec, len(index.rows))
    parts = {part: Chips(data, index.part(part), bands, spec, held) for part in PARTS}
    weighted = task.kind in CLASS_MAPS and task.finetune.class_weights == "root-inverse"
    weights = _class_weights(parts["train"], len(spec.classes)) if weighted else None
    return Job(task_name, model_name, task, index, spec, parts, weights, use_device(params.device), card)


def _spec(name: str, task: Task, index: TaskIndex, *, bands: int) -> TaskSpec:
    samples = [row.sample for row in index.rows]
    side = max(max(sample.window[2:]) for sample in samples)
    spec = TaskSpec(
        name=name,
        classes=tuple(index.classes),
        dates=len(samples[0].inputs) if task.dates is None else task.dates.number,
        bands=bands,
        image_px=task.image_px,
        mask_px=side if task.kind in CLASS_MAPS else None,
        positive=positive_id(name, task, index.classes),
        metric=task.metric,
        loss=task.loss,
        reduce="mean" if task.dates is None else task.dates.reduce,
    )
    if isinstance(task.data, SpaceNet2):
        target_side = max(max((sample.target_window or sample.window)[2:]) for sample in samples)
        return replace(spec, image_px=side, encoder_px=task.image_px, number_px=target_side, number_bands=bands)
    if task.kind == "regression":
        train = index.numbers["train"]
        number_px = None if task.numbers_images else side
        return replace(
            spec, number_px=number_px, number_mean=train["mean"], number_std=train["std"], unit=_unit(task.data)
        )
    return spec


def _unit(data: Format) -> str:
    if isinstance(data, LabelsTable | DatedFolders) and data.labels is not None:
        return data.labels.unit
    return data.target.unit if isinstance(data, ImageTargets | DatedFolders | GeoBench2Samples) else ""


def _class_weights(train: Chips, classes: int) -> Tensor:
    """Root of the inverse share of each class among the training pixels: a rare class counts more, but not all."""
    counts = torch.zeros(classes)
    for number in range(len(train)):
        mask = train.target(number)
        counts += torch.bincount(mask[mask != IGNORED].long(), minlength=classes)
    return (counts.sum() / (classes * counts.clamp(min=1))).sqrt()
