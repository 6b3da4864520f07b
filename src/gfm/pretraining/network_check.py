"""Every network of a parameter file built without weights or memory, so that what does not fit is named at once."""

from __future__ import annotations

from pathlib import Path

import torch

from gfm.errors import GfmError, WeightsError
from gfm.models.backbone import build_backbone, set_image_px
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.params import (
    Architecture,
    CheckpointEncoder,
    FollowsTeacher,
    Normalisation,
    ParameterError,
    Params,
    RegisteredEncoder,
    TimmEncoder,
)
from gfm.pretraining.declared_weights import check_digest, check_input
from gfm.pretraining.recipes import Networks, build_recipe


def check_networks(params: Params, folder: Path) -> list[str]:
    """Raise ParameterError for a teacher or student that timm refuses, for weights that are no file, and for a recipe
    that does not fit the two (taps, windows, mask units); WeightsError for weights that are not what is declared.

    Nothing is drawn and no image is seen: the tensors are torch's meta tensors. `folder` is the parameter file's.
    Returns remarks on what cannot be told from here.
    """
    remarks = []
    teacher, student = params.teacher, params.student
    named = {"teacher": teacher, **{f"encoders.{name}": encoder for name, encoder in params.encoders.items()}}
    for key, encoder in named.items():
        if isinstance(encoder, TimmEncoder):
            if encoder.weights != "hub":
                _must_be(folder, key, "weights", encoder.weights, str(encoder.sha256))
            remarks.append(check_input(encoder, folder, key))
        elif isinstance(encoder, CheckpointEncoder):
            _must_be(folder, key, "file", encoder.file, encoder.sha256)
        elif isinstance(encoder, RegisteredEncoder) and isinstance(encoder.version, str):
            remarks.append(
                f"{key}.version = {encoder.version} is looked up when the encoder is made; "
                "`dvc repro -f encoder@NAME` looks again, a number stays what it is"
            )
    bands = params.geopile.bands
    with torch.device("meta"):
        for key, encoder in named.items():
            if not isinstance(encoder, CheckpointEncoder | RegisteredEncoder):  # whose files say what they are
                _encoder(key, encoder.architecture, encoder.normalisation, bands)
        problems = []
        for name, run in params.pretrain.items():
            start = _encoder("student", student.architecture, student.normalisation, bands)
            try:
                followed = None
                if isinstance(run, FollowsTeacher):
                    followed = _encoder("teacher", teacher.architecture, teacher.normalisation, bands)
                    _resize(followed, run.teacher_px, f"pretrain.{name}.teacher_px")
                build_recipe(run, Networks(start, followed, params.pretraining_seed(name), name))
            except GfmError as error:  # of every pretraining at once, not one a call
                problems.append(str(error))
        if problems:
            raise ParameterError("; ".join(problems))
    return [remark for remark in remarks if remark]


def _must_be(folder: Path, key: str, field: str, path: str, sha256: str) -> None:
    if (folder / path).is_dir():
        raise ParameterError(f"{key}.{field} = {path}: is a folder; name the weights file in it")
    if not (folder / path).is_file():
        raise ParameterError(f"{key}.{field} = {path}: no such file; the path starts at the parameter file")
    check_digest(folder / path, sha256, key, field)


def _encoder(key: str, wanted: Architecture, norm: Normalisation, bands: list[str]) -> Encoder:
    try:
        backbone = build_backbone(wanted.name, wanted.args, image_px=wanted.image_px, bands=len(bands), seed=0)
        card = EncoderCard(
            wanted.name, wanted.args, wanted.image_px, bands, norm.mean, norm.std, "live", "random", licence=""
        )
        return Encoder(backbone, card, key)
    except WeightsError as error:
        raise ParameterError(f"{key}.architecture: {error}") from None


def _resize(encoder: Encoder, image_px: int, key: str) -> None:
    if image_px == encoder.card.image_px:
        return
    try:
        set_image_px(encoder.backbone, image_px)
    except WeightsError as error:
        raise ParameterError(f"{key}: {error}") from None
