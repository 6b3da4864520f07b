"""Every network of a parameter file built without weights or memory, so that what does not fit is named at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from gfm.errors import GfmError, WeightsError
from gfm.models.backbone import set_image_px
from gfm.models.declared_encoder import declared_encoder
from gfm.models.encoder import Encoder
from gfm.params import (
    CheckpointEncoder,
    FollowsTeacher,
    ParameterError,
    ParameterFaults,
    Params,
    Pretraining,
    PublishedEncoder,
    RegisteredEncoder,
    Student,
    Teacher,
    TimmEncoder,
)
from gfm.pretraining.declared_weights import (
    check_batch_norm,
    check_digest,
    check_input,
    fitting_weights,
    outlined_weights,
)
from gfm.pretraining.recipes import Networks, build_recipe


def check_networks(params: Params, folder: Path) -> list[str]:
    """Raise ParameterFaults for a teacher or student that timm refuses, for weights that are no file or not what is
    declared, and for a recipe that does not fit the two networks (taps, windows, mask units): a line of each.

    Nothing is drawn and no image is seen: the tensors are torch's meta tensors. `folder` is the parameter file's.
    Returns remarks on what cannot be told from here.
    """
    remarks: list[str] = []
    faults: list[str] = []
    built: dict[str, Encoder] = {}
    teacher, student, bands = params.teacher, params.student, params.geopile.bands

    def told(look: Callable[[], str | None]) -> None:
        try:
            remarks.append(look() or "")
        except GfmError as error:
            faults.extend(error.faults)

    def build(key: str, encoder: Teacher | Student | PublishedEncoder) -> None:
        if not isinstance(encoder, CheckpointEncoder | RegisteredEncoder):  # whose files say what they are
            built[key] = declared_encoder(key, encoder.architecture, encoder.normalisation, bands)

    named = {"teacher": teacher, **{f"encoders.{name}": encoder for name, encoder in params.encoders.items()}}
    with torch.device("meta"):
        for key, encoder in {"student": student, **named}.items():
            told(partial(build, key, encoder))
        for name, run in params.pretrain.items():
            if built.keys() >= ({"student", "teacher"} if isinstance(run, FollowsTeacher) else {"student"}):
                told(partial(_build_recipe, params, name, run))
    for key, encoder in named.items():
        told(partial(_check_weights, key, encoder, folder, built.get(key)))
    if faults:
        raise ParameterFaults(faults)
    return [remark for remark in remarks if remark]


def _build_recipe(params: Params, name: str, run: Pretraining) -> None:
    """Of networks of its own, which it may change."""
    teacher, student, bands = params.teacher, params.student, params.geopile.bands
    start = declared_encoder("student", student.architecture, student.normalisation, bands)
    followed = None
    if isinstance(run, FollowsTeacher):
        followed = declared_encoder("teacher", teacher.architecture, teacher.normalisation, bands)
        _resize(followed, run.teacher_px, f"pretrain.{name}.teacher_px")
    build_recipe(run, Networks(start, followed, params.pretraining_seed(name), name))


def _check_weights(key: str, encoder: Teacher | PublishedEncoder, folder: Path, built: Encoder | None) -> str:
    """A remark on weights that are there and are what is declared, as far as can be told; WeightsError else."""
    if isinstance(encoder, RegisteredEncoder) and isinstance(encoder.version, str):
        return (
            f"{key}.version = {encoder.version} is looked up when the encoder is made; "
            "`dvc repro -f encoder@NAME` looks again, a number stays what it is"
        )
    if isinstance(encoder, CheckpointEncoder):
        _must_be(folder, key, "file", encoder.file, encoder.sha256)
    if not isinstance(encoder, TimmEncoder):
        return ""
    if encoder.weights != "hub":
        path = folder / encoder.weights
        _must_be(folder, key, "weights", encoder.weights, str(encoder.sha256))
        state = outlined_weights(path)
        check_batch_norm(encoder, state, key, str(path))
        if built is not None:
            fitting_weights(built.backbone, state, str(path))
    return check_input(encoder, folder, key)


def _must_be(folder: Path, key: str, field: str, path: str, sha256: str) -> None:
    if (folder / path).is_dir():
        raise ParameterError(f"{key}.{field} = {path}: is a folder; name the weights file in it")
    if not (folder / path).is_file():
        raise ParameterError(f"{key}.{field} = {path}: no such file; the path starts at the parameter file")
    check_digest(folder / path, sha256, key, field)


def _resize(encoder: Encoder, image_px: int, key: str) -> None:
    if image_px == encoder.card.image_px:
        return
    try:
        set_image_px(encoder.backbone, image_px)
    except WeightsError as error:
        raise ParameterError(f"{key}: {error}") from None
