"""The published student and teacher: masked image modelling beside distillation (GFM, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from gfm.models.distill import FeatureDistillation, Places, TeacherFollower
from gfm.models.encoder import Encoder
from gfm.models.simmim import masked_l1, pixel_decoder
from gfm.models.student import MaskedEncoder


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars of one batch: `total` = `mim` + alpha * `distillation`."""

    total: Tensor
    mim: Tensor  # mean absolute error over masked pixels, in normalised units
    distillation: Tensor  # minus the mean cosine similarity, in [-1, 1]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass computes, beside the losses."""

    losses: Losses
    encoder_map: Tensor  # (B, C, H / stride, W / stride): the student's last map, after its norm
    student_feature: Tensor  # (B, Cs), pooled
    teacher_feature: Tensor  # (B, Ct), pooled
    reconstruction: Tensor  # (B, bands, H, W), normalised as the student's input


class StudentTeacher(TeacherFollower):
    """A student that fills in masked blocks and follows a frozen teacher that sees the whole image.

    forward(image, mask, feature) takes a float image (B, C, H, W) in [0, 1], a bool block mask (B, h, w), True where
    masked, and, where they are known already, the teacher's features (B, Ct); each encoder normalises by its own
    statistics. The teacher sees the unmasked image. `seed` draws decoder, projector and token.
    """

    def __init__(
        self, student: Encoder, teacher: Encoder, *, alpha: float, seed: int, **places: Unpack[Places]
    ) -> None:
        super().__init__(student, teacher, **places)
        self.alpha = alpha
        self.last = student.levels[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.student = MaskedEncoder(student)
            self.decoder = pixel_decoder(self.last, len(student.bands))
            self.distillation = FeatureDistillation(self.student_tap.channels, self.teacher_tap.channels)

    def forward(self, image: Tensor, mask: Tensor, feature: Tensor | None = None) -> Outputs:
        """Losses, features and reconstruction of a batch."""
        target = self.student.encoder.normalise(image)
        feature_map, encoder_map = self.student(target, mask, [self.student_tap.level, self.last])
        student_feature = self.student_tap.pooled(self.student.encoder.backbone, feature_map)
        reconstruction = self.decoder(encoder_map)
        feature = self.of_teacher(image, feature)
        mim = masked_l1(reconstruction, target, mask)
        distillation = self.distillation(student_feature, feature)
        losses = Losses(mim + self.alpha * distillation, mim, distillation)
        return Outputs(losses, encoder_map, student_feature, feature, reconstruction)
