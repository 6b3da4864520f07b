"""The published objectives where masked blocks are never computed and the teacher's features are read, not computed."""

from __future__ import annotations

from torch import Tensor

from gfm.models.distill import find_taps
from gfm.models.fast import FastStudentTeacher
from gfm.models.masking import masked_blocks
from gfm.params import GfmFastPretraining
from gfm.pretraining.batch import Batch
from gfm.pretraining.recipes.recipe import Networks, Recipe


class GfmFast(Recipe):
    """L = L_MIM + alpha * L_feat, the student's feature pooled over what it sees."""

    loss_names = ("loss", "mim", "distillation")
    model: FastStudentTeacher
    method = (
        "Continual pretraining with the objectives of GFM (ICCV 2023), the masked blocks of the image never computed: "
        "a small decoder fills them in from the visible ones, whose pooled features follow those that a frozen teacher "
        "gave for the whole image. The student's windows do not cross mask blocks in its early stages."
    )

    def __init__(self, settings: GfmFastPretraining, networks: Networks) -> None:
        self.student, self.masking = networks.student, settings.masking
        teacher = networks.the_teacher()
        student_tap = settings.student_tap.place
        _, of_teacher = find_taps(networks.student, teacher, student_tap, settings.teacher_tap.place, networks.key)
        self.model = FastStudentTeacher(
            networks.student,
            teacher_width=of_teacher.channels,
            student_tap=student_tap,
            unit_px=settings.masking.unit,
            masked=masked_blocks(networks.student.card.image_px // settings.masking.unit, settings.masking.ratio),
            alpha=settings.alpha,
            decoder_width=settings.decoder.width,
            decoder_depth=settings.decoder.depth,
            decoder_heads=settings.decoder.heads,
            seed=networks.seed,
            name=networks.name,
        )

    def losses(self, batch: Batch) -> list[Tensor]:
        """Total, reconstruction and distillation."""
        losses = self.model(batch.pictures, batch.the_masks(), batch.features).losses
        return [losses.total, losses.mim, losses.distillation]

    def filled_in(self, batch: Batch) -> Tensor:
        """The decoder's picture, in the masked blocks."""
        return self.model.reconstruct(batch.pictures, batch.the_masks())
