"""What a pretraining recipe is: a model, the losses of a batch, and the picture of what it fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gfm.models.distill import Places
from gfm.models.encoder import Encoder
from gfm.params import DistillPretraining, GfmPretraining, Masking
from gfm.pretraining.batch import Batch


@dataclass(frozen=True, slots=True)
class Networks:
    """What a recipe is built from."""

    student: Encoder
    teacher: Encoder | None  # frozen; None where the recipe follows none
    seed: int  # of decoder, projector and token
    name: str  # the pretraining's, for errors

    @property
    def key(self) -> str:
        """Where the pretraining's parameters stand."""
        return f"pretrain.{self.name}"

    def the_teacher(self) -> Encoder:
        """The teacher, of a recipe that cannot do without one."""
        if self.teacher is None:
            raise ValueError(f"{self.key}: the recipe needs a teacher")
        return self.teacher


def places(settings: GfmPretraining | DistillPretraining, networks: Networks) -> Places:
    """Where the student follows a teacher that is run beside it."""
    return Places(
        student_tap=settings.student_tap.place,
        teacher_tap=settings.teacher_tap.place,
        teacher_px=settings.teacher_px,
        name=networks.name,
    )


class Recipe(ABC):
    """One way to pretrain a student.

    `model` is what is trained; its frozen part, if any, is its attribute `teacher`. `method` says in a sentence what
    was done, for the model card.
    """

    loss_names: ClassVar[tuple[str, ...]]  # of what `losses` returns; the first is minimised
    method: ClassVar[str]
    model: nn.Module
    student: Encoder
    masking: Masking | None

    @abstractmethod
    def losses(self, batch: Batch) -> list[Tensor]:
        """Scalars of a batch, in the order of `loss_names`."""

    @abstractmethod
    def filled_in(self, batch: Batch) -> Tensor | None:
        """What the student makes of the masked images, (B, C, px, px) in the student's normalised units, or None."""
