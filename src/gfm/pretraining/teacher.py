"""`gfm teacher`: the frozen teacher, trained here from labels or imported from timm."""

from __future__ import annotations

from gfm.params import Params, SupervisedTeacher


def make_teacher(params: Params) -> None:
    """Write models/encoders/teacher as params.teacher says."""
    if isinstance(params.teacher, SupervisedTeacher):
        from gfm.pretraining.supervised_teacher import train_teacher

        train_teacher(params, params.teacher)
    else:
        from gfm.pretraining.timm_encoder import import_timm

        import_timm(params, "teacher", params.teacher, key="teacher", role="teacher")
