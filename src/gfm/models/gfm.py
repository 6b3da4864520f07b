"""The published student and teacher: masked image modelling beside distillation (GFM, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfm.models.backbone import pyramid
from gfm.models.encoder import Encoder
from gfm.models.masking import spread
from gfm.models.student import MaskedEncoder
from gfm.models.tap import find_tap


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


class StudentTeacher(nn.Module):
    """A student that fills in masked blocks and follows a frozen teacher that sees the whole image.

    forward(image, mask) takes a float image (B, C, H, W) in [0, 1] and a bool block mask (B, h, w), True where masked;
    each encoder normalises by its own statistics. The teacher sees the unmasked image resized to `teacher_px`
    (bilinear, corners aligned), stays in eval mode and gets no gradient. `seed` draws decoder, projector and token.
    GfmError names `pretrain.NAME.*_tap` where a network has no such place.
    """

    def __init__(
        self,
        student: Encoder,
        teacher: Encoder,
        *,
        student_tap: tuple[int, bool],
        teacher_tap: tuple[int, bool],
        teacher_px: int,
        alpha: float,
        seed: int,
        name: str,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.teacher_px = teacher_px
        key = f"pretrain.{name}"
        self.student_tap = find_tap(
            student.backbone, stage=student_tap[0], merged=student_tap[1], key=f"{key}.student_tap"
        )
        self.teacher_tap = find_tap(
            teacher.backbone, stage=teacher_tap[0], merged=teacher_tap[1], key=f"{key}.teacher_tap"
        )
        bands = len(student.bands)
        self.last = student.levels[-1]
        self.teacher = teacher.requires_grad_(False).eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.student = MaskedEncoder(student)
            self.decoder = nn.Sequential(
                nn.Conv2d(self.last.channels, self.last.stride**2 * bands, kernel_size=1),
                nn.PixelShuffle(self.last.stride),
            )
            self.distillation = FeatureDistillation(self.student_tap.channels, self.teacher_tap.channels)

    def train(self, mode: bool = True) -> StudentTeacher:
        """Training mode for everything but the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, image: Tensor, mask: Tensor) -> Outputs:
        """Losses, features and reconstruction of a batch."""
        target = self.student.encoder.normalise(image)
        feature_map, encoder_map = self.student(target, mask, [self.student_tap.level, self.last])
        student_feature = self.student_tap.pooled(self.student.encoder.backbone, feature_map)
        reconstruction = self.decoder(encoder_map)
        teacher_feature = self.teacher_feature(image)
        mim = masked_l1(reconstruction, target, mask)
        distillation = self.distillation(student_feature, teacher_feature)
        losses = Losses(mim + self.alpha * distillation, mim, distillation)
        return Outputs(losses, encoder_map, student_feature, teacher_feature, reconstruction)

    @torch.no_grad()
    def teacher_feature(self, image: Tensor) -> Tensor:
        """The frozen teacher's pooled feature (B, Ct) of a whole image in [0, 1]."""
        if image.shape[-1] != self.teacher_px:
            size = (self.teacher_px, self.teacher_px)
            image = F.interpolate(image, size, mode="bilinear", align_corners=True)
        tap = self.teacher_tap
        (feature_map,) = pyramid(self.teacher.backbone, [tap.level], self.teacher.normalise(image))
        return tap.pooled(self.teacher.backbone, feature_map)


def masked_l1(reconstruction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute error over masked pixels (SimMIM, equation 1), the published denominators kept.

    `reconstruction` and `target` are (B, C, H, W), `mask` is a bool block mask (B, h, w).
    """
    hidden = spread(mask, (target.shape[2], target.shape[3])).unsqueeze(1)
    error = (reconstruction.float() - target.float()).abs() * hidden
    return error.sum() / (hidden.sum() + 1e-5) / target.shape[1]
