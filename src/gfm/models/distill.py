"""Following a frozen teacher's pooled features (GFM, equation 1), and a student that does only that."""

from __future__ import annotations

from typing import Self, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.models.backbone import pyramid
from gfm.models.encoder import Encoder
from gfm.models.tap import TapPoint, find_tap


class FeatureDistillation(nn.Module):
    """Pull the student's pooled feature towards the frozen teacher's (GFM, equation 1).

    forward(student, teacher) takes (B, Cs) and (B, Ct) float tensors and returns the scalar
    -mean(cosine(P(student), teacher)), in [-1, 1]. The teacher carries no gradient.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projector = nn.Linear(student_width, teacher_width)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Minus the mean cosine similarity."""
        return -F.cosine_similarity(self.projector(student).float(), teacher.detach().float(), dim=1).mean()


class Places(TypedDict):
    """Where a student follows its teacher, (stage, merged) each; the teacher's input size; the model's name."""

    student_tap: tuple[int, bool]
    teacher_tap: tuple[int, bool]
    teacher_px: int
    name: str


class TeacherFollower(nn.Module):
    """What a student that follows a frozen teacher has: both taps, and the teacher's feature of an image.

    The teacher sees the whole image resized to `teacher_px`, stays in eval mode and gets no gradient. GfmError names
    `pretrain.NAME.*_tap` where a network has no such place.
    """

    def __init__(self, student: Encoder, teacher: Encoder, **places: Unpack[Places]) -> None:
        super().__init__()
        self.student_tap, self.teacher_tap = find_taps(
            student, teacher, places["student_tap"], places["teacher_tap"], f"pretrain.{places['name']}"
        )
        self.teacher_px = places["teacher_px"]
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode for everything but the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    def of_teacher(self, image: Tensor, feature: Tensor | None) -> Tensor:
        """The teacher's features (B, Ct) of images (B, C, H, W) in [0, 1], computed where they are not known."""
        return teacher_feature(self.teacher, self.teacher_tap, self.teacher_px, image) if feature is None else feature


class WholeImageDistillation(TeacherFollower):
    """A student whose pooled features follow a frozen teacher's on the same image, nothing masked.

    forward(image, feature) takes a float image (B, C, H, W) in [0, 1] and, where they are known already, the teacher's
    features (B, Ct); it returns the scalar of FeatureDistillation. `seed` draws the projector.
    """

    def __init__(self, student: Encoder, teacher: Encoder, *, seed: int, **places: Unpack[Places]) -> None:
        super().__init__(student, teacher, **places)
        self.student = student
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.distillation = FeatureDistillation(self.student_tap.channels, self.teacher_tap.channels)

    def forward(self, image: Tensor, feature: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        tap = self.student_tap
        (student_map,) = pyramid(self.student.backbone, [tap.level], self.student.normalise(image))
        pooled = tap.pooled(self.student.backbone, student_map)
        loss: Tensor = self.distillation(pooled, self.of_teacher(image, feature))
        return loss


@torch.no_grad()
def teacher_feature(teacher: Encoder, tap: TapPoint, px: int, image: Tensor) -> Tensor:
    """A frozen teacher's pooled feature (B, Ct) of whole images (B, C, H, W) in [0, 1].

    They are resized to `px` a side (bilinear, corners aligned), as published.
    """
    if image.shape[-1] != px:
        image = F.interpolate(image, (px, px), mode="bilinear", align_corners=True)
    (feature_map,) = pyramid(teacher.backbone, [tap.level], teacher.normalise(image))
    return tap.pooled(teacher.backbone, feature_map)


def find_taps(
    student: Encoder, teacher: Encoder, student_tap: tuple[int, bool], teacher_tap: tuple[int, bool], key: str
) -> tuple[TapPoint, TapPoint]:
    """The taps (stage, merged) of student and teacher; GfmError names each `KEY.*_tap` that a network lacks."""
    found, problems = [], []
    wanted = ((student, student_tap, "student_tap"), (teacher, teacher_tap, "teacher_tap"))
    for encoder, (stage, merged), part in wanted:
        try:
            found.append(find_tap(encoder.backbone, stage=stage, merged=merged, key=f"{key}.{part}"))
        except GfmError as error:
            problems.append(str(error))
    if problems:
        raise GfmError("; ".join(problems))
    return found[0], found[1]
