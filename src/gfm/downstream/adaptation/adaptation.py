"""The contract of an adaptation mode: what learns, how fast, from which images, and what is saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gfm.downstream.adaptation.groups import parameter_groups
from gfm.downstream.adaptation.rates import warmup_then_cosine
from gfm.downstream.data import turned
from gfm.downstream.module import Group, Rates
from gfm.downstream.tasks import Batch, TaskModel
from gfm.downstream.training import Learned, Training
from gfm.params import Finetune

HEAD = ""  # suffix of the file that holds a model's own tensors, `seed-N.safetensors`
Files = Mapping[str, Mapping[str, Tensor]]  # suffix of the file's name -> what it holds


class Adaptation(ABC):
    """One way to adapt an encoder to a task.

    `prepare` is called once on a fresh model, then `learn`, then `saved`; or `prepare`, then `restore` what was saved.
    """

    drop_path: float | None = None  # of the encoder to load; None: as it was made

    def __init__(self, settings: Finetune) -> None:
        self.settings = settings

    @abstractmethod
    def prepare(self, model: TaskModel) -> None:
        """Freeze or extend the model's encoder."""

    def learn(self, model: TaskModel, training: Training) -> Learned:
        """Train with images, choose the epoch on validation, test once; the model is left as it was tested."""
        generator = torch.Generator().manual_seed(training.seed)
        return training.train(
            model,
            training.parts,
            groups=self.groups(model),
            rates=self.rates(),
            augment=lambda batch: self.augment(batch, model, generator),
        )

    def groups(self, model: TaskModel) -> list[Group]:
        """What learns, with learning rates and weight decay."""
        own = self.settings
        return parameter_groups(model, head_lr=own.lr, encoder_lr=own.encoder_lr, weight_decay=own.weight_decay)

    def rates(self) -> Rates:
        """The schedule of the learning rates."""
        return warmup_then_cosine(self.settings.warmup_share)

    def augment(self, batch: Batch, model: TaskModel, generator: torch.Generator) -> Batch:
        """A training batch as it is learned from: every sample flipped and turned at random."""
        return turned(batch, generator)

    @abstractmethod
    def saved(self, model: TaskModel) -> dict[str, dict[str, Tensor]]:
        """What is needed beside the encoder's folder: the file's suffix -> its tensors."""

    @abstractmethod
    def restore(self, model: TaskModel, files: Files) -> None:
        """Bring back what `saved` gave, into a prepared model. RuntimeError where the tensors are others."""


def head_tensors(model: TaskModel) -> dict[str, Tensor]:
    """The tensors of everything but the encoder."""
    inner = {f"encoder.{key}" for key in model.encoder.state_dict()}
    return {key: value for key, value in model.state_dict().items() if key not in inner}


def restore_head(model: TaskModel, tensors: Mapping[str, Tensor]) -> None:
    """Load everything but the encoder."""
    inner = {f"encoder.{key}": value for key, value in model.encoder.state_dict().items()}
    model.load_state_dict({**inner, **tensors})
