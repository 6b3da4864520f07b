"""The student and the teacher that a pretraining begins with."""

from __future__ import annotations

from dataclasses import replace

from gfm import layout
from gfm.errors import GfmError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder, check_keys, load_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.sparse_swin import aligned_stages, drop_shift
from gfm.params import FollowsTeacher, GfmFastPretraining, Params, Pretraining
from gfm.pretraining.recipes import Networks

TEACHER = layout.encoder_folder("teacher")


def load_networks(params: Params, name: str) -> Networks:
    """The networks of `pretrain.NAME`: the student as it starts, and the teacher where the recipe follows one.

    GfmError where the teacher takes other bands, or where its weights do not fit the student that starts from them.
    """
    run, seed = params.pretrain[name], params.pretraining_seed(name)
    teacher = None
    if isinstance(run, FollowsTeacher):
        teacher = load_encoder(TEACHER, image_px=run.teacher_px, seed=seed)
        _check_bands(params, teacher)
    return Networks(_student(params, run, teacher, seed), teacher, seed, name)


def uses_teacher(run: Pretraining) -> bool:
    """Whether what comes out depends on the teacher: followed, taken as a start, or asked what repeats."""
    return isinstance(run, FollowsTeacher) or run.start == "teacher" or run.duplicate_cosine is not None


def _student(params: Params, run: Pretraining, teacher: Encoder | None, seed: int) -> Encoder:
    wanted, norm = params.student.architecture, params.student.normalisation
    bands = list(params.geopile.bands)
    licences = [source.licence for name, source in params.geopile.sources.items() if name != run.without]
    start = None
    if run.start == "teacher":
        start = load_encoder(TEACHER, image_px=wanted.image_px, seed=seed)
        _check_bands(params, start)
    parent = start or teacher
    card = EncoderCard(
        architecture=wanted.name,
        model_args=dict(wanted.args),
        image_px=wanted.image_px,
        bands=bands,
        mean=list(norm.mean),
        std=list(norm.std),
        batch_norm="live" if start is None else start.card.batch_norm,
        origin="pretrained",
        licence="; ".join(dict.fromkeys([*licences, *([parent.card.licence] if parent else [])])),
        parents=["teacher"] if parent else [],
    )
    backbone = build_backbone(wanted.name, wanted.args, image_px=wanted.image_px, bands=len(bands), seed=seed)
    if start is not None:
        if (start.card.mean, start.card.std) != (card.mean, card.std):
            raise GfmError(
                f"student.normalisation differs from the teacher's (mean {start.card.mean}, std {start.card.std}), "
                "whose weights the student starts from; set it to the teacher's"
            )
        state = start.backbone.state_dict()
        check_keys(backbone, state, f"{TEACHER} for student.architecture")
        backbone.load_state_dict(state, strict=True)
    if isinstance(run, GfmFastPretraining):
        # Its early windows are the mask units; who loads the encoder gets the form that was trained.
        stages = aligned_stages(backbone, run.masking.unit)
        drop_shift(backbone, stages)
        card = replace(card, unshifted_stages=list(stages))
    return Encoder(backbone, card, "student")


def _check_bands(params: Params, teacher: Encoder) -> None:
    if teacher.bands != params.geopile.bands:
        raise GfmError(
            f"geopile.bands is {', '.join(params.geopile.bands)}, but the teacher takes {', '.join(teacher.bands)}; "
            "run `gfm teacher` again"
        )
