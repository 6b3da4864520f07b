"""A student that never computes masked tokens and follows stored features of its teacher: the `gfm-fast` recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.models.distill import FeatureDistillation
from gfm.models.encoder import Encoder
from gfm.models.gfm import Losses
from gfm.models.masking import masked_units, paste_units, visible_units
from gfm.models.sparse_swin import SparseSwin
from gfm.models.tap import find_tap
from gfm.models.unit_decoder import UnitDecoder, masked_units_l1


@dataclass(frozen=True, slots=True)
class FastOutputs:
    """What one forward pass computes, beside the losses."""

    losses: Losses
    features: Tensor  # (B, V, C): the student's last map at the visible units, after its norm
    student_feature: Tensor  # (B, Cs), pooled over visible tokens
    predicted: Tensor  # (B, M, bands * unit_px^2): the masked units, normalised as the student's input


class SparseStudent(nn.Module):
    """Runs an encoder's Swin on visible units; see SparseSwin. The parameters are the encoder's own."""

    def __init__(self, encoder: Encoder, unit_px: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.sparse = SparseSwin(encoder.backbone, unit_px)

    def forward(self, image: Tensor, visible: Tensor) -> list[Tensor]:
        """Maps (B, V, h, w, C) of all stages of a normalised image (B, C, H, W) with visible units (B, V)."""
        return self.sparse(image, visible)


class FastStudentTeacher(nn.Module):
    """A student that fills in masked units from visible ones and follows a teacher's features of the whole image.

    forward(image, mask, feature) takes a float image (B, C, H, W) in [0, 1], a bool mask of units (B, h, w), True where
    masked, with `masked` units in each row, and the teacher's pooled features (B, teacher_width) of the same images.
    The student's feature is the mean over visible tokens only, where the published one averages over all.

    Args:
        teacher_width: length of the teacher's feature.
        student_tap: (stage, merged); merging happens inside units, where it equals that of the whole map.
        unit_px: side of a mask unit in pixels.
        masked: masked units of each image (`masked_blocks`).
        alpha: weight of the distillation loss.
        seed: draws decoder and projector.
        name: of the model, for errors: GfmError names `pretrain.NAME.student_tap` or what does not fit the student.
    """

    def __init__(
        self,
        student: Encoder,
        *,
        teacher_width: int,
        student_tap: tuple[int, bool],
        unit_px: int,
        masked: int,
        alpha: float,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        seed: int,
        name: str,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.unit_px = unit_px
        self.student = SparseStudent(student, unit_px)
        self.units = self.student.sparse.units
        self.masked = masked
        self.visible = self.units[0] * self.units[1] - masked
        if masked < 1 or self.visible < 1:
            raise GfmError(
                f"pretrain.{name}.masking.ratio: {masked} of {masked + self.visible} units masked; "
                "choose it so that some are masked and some visible"
            )
        self.tap = find_tap(
            student.backbone, stage=student_tap[0], merged=student_tap[1], key=f"pretrain.{name}.student_tap"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = UnitDecoder(
                student.levels[-1].channels * (unit_px // student.levels[-1].stride) ** 2,
                units=self.units,
                unit_px=unit_px,
                bands=len(student.bands),
                width=decoder_width,
                depth=decoder_depth,
                heads=decoder_heads,
            )
            self.distillation = FeatureDistillation(self.tap.channels, teacher_width)

    def forward(self, image: Tensor, mask: Tensor, feature: Tensor) -> FastOutputs:
        """Losses, features and predicted units of a batch."""
        target = self.student.encoder.normalise(image)
        visible, masked = self._split(mask)
        maps = self.student(target, visible)
        features = maps[-1].flatten(2)
        predicted = self.decoder(features, visible, masked)
        student_feature = self._pooled(maps[self.tap.level.index])
        mim = masked_units_l1(predicted, target, masked, self.unit_px)
        distillation = self.distillation(student_feature, feature)
        losses = Losses(mim + self.alpha * distillation, mim, distillation)
        return FastOutputs(losses, features, student_feature, predicted)

    @torch.no_grad()
    def reconstruct(self, image: Tensor, mask: Tensor) -> Tensor:
        """A picture (B, bands, H, W), normalised as the student's input, to look at.

        Masked units are predicted; visible pixels are the input's own, because the decoder does not predict them.
        """
        target = self.student.encoder.normalise(image)
        visible, masked = self._split(mask)
        predicted = self.decoder(self.student(target, visible)[-1].flatten(2), visible, masked)
        pixels = predicted.unflatten(2, (target.shape[1], self.unit_px, self.unit_px))
        return paste_units(target, masked, pixels)

    def _split(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        if (mask.shape[1], mask.shape[2]) != self.units:
            raise GfmError(
                f"mask of {mask.shape[1]} x {mask.shape[2]} units: the student's images have "
                f"{self.units[0]} x {self.units[1]} of {self.unit_px} px"
            )
        return visible_units(mask, self.visible), masked_units(mask, self.masked)

    def _pooled(self, units: Tensor) -> Tensor:
        """The mean (B, channels) of the tapped features over visible tokens, given the map (B, V, h, w, C)."""
        of_units = self.tap.pooled(self.student.encoder.backbone, units.flatten(0, 1).permute(0, 3, 1, 2))
        return of_units.view(*units.shape[:2], -1).mean(dim=1)
