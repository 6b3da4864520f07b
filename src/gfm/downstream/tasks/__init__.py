"""Kinds of downstream tasks, one file each; `build_model` gives the network of the kind that a task declares."""

from __future__ import annotations

from torch import Tensor

from gfm.downstream.tasks.change import Change
from gfm.downstream.tasks.classification import Classification
from gfm.downstream.tasks.multilabel import Multilabel
from gfm.downstream.tasks.quantity import Quantity
from gfm.downstream.tasks.regression import Regression
from gfm.downstream.tasks.segmentation import Segmentation
from gfm.downstream.tasks.super_resolution import SuperResolution
from gfm.downstream.tasks.task import Batch, Panel, Scores, TaskModel, TaskSpec
from gfm.models.encoder import Encoder

__all__ = ["Batch", "Panel", "Scores", "TaskModel", "TaskSpec", "build_model"]


def build_model(kind: str, encoder: Encoder, spec: TaskSpec, class_weights: Tensor | None = None) -> TaskModel:
    """The network of a kind of task, its head drawn from torch's global random state."""
    match kind:
        case "classification":
            return Classification(encoder, spec)
        case "multilabel":
            return Multilabel(encoder, spec)
        case "segmentation":
            return Segmentation(encoder, spec, class_weights)
        case "change":
            return Change(encoder, spec, class_weights)
        case "super-resolution":
            return SuperResolution(encoder, spec)
        case "regression":
            return Quantity(encoder, spec) if spec.number_px is None else Regression(encoder, spec)
    raise ValueError(f"no task of kind {kind}")
