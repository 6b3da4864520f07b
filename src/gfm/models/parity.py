"""Agreement with the published code: its weights in our modules, its input through them, every number compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from gfm.errors import GfmError, WeightsError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.gfm import StudentTeacher
from gfm.models.parity_file import ParityFile, Swin
from gfm.models.published import COMPUTED, own_place, published_name

TOLERANCE = 1e-4
# The smallest denominator of a relative error. It lets an expected zero be met by a zero, and gives no room elsewhere.
FLOOR = 1e-8
# A cosine near 0 carries the rounding of numbers near 1, and the total loss contains it.
LOSS_FLOOR = 1e-2
LOSSES = {"loss", "loss_mim", "loss_feat"}


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity compared: `error` = max |found - expected| / max(max |expected|, a floor), infinite for a NaN."""

    quantity: str
    shape: tuple[int, ...]
    largest: float  # max |expected|
    difference: float  # max |found - expected|
    error: float
    note: str = ""

    def within(self, tolerance: float) -> bool:
        """Whether the error is at most the tolerance; never for a NaN."""
        return self.error <= tolerance


def row(quantity: str, found: Tensor, expected: Tensor, floor: float = FLOOR) -> Row:
    """Compare two tensors of one shape, in float64."""
    largest = float(expected.double().abs().max())
    difference = float((found.detach().double() - expected.double()).abs().max())
    error = math.inf if math.isnan(difference) else difference / max(largest, floor)
    return Row(quantity, tuple(expected.shape), largest, difference, error)


def build_published(student: Swin, teacher: Swin, *, alpha: float) -> StudentTeacher:
    """The published student and teacher with random weights, taking images that are normalised already.

    Both features are taken after the last stage but one and the merging behind it (GFM, section 4.1).
    """
    return StudentTeacher(
        _encoder(student, "student"),
        _encoder(teacher, "teacher"),
        student_tap=(len(student.depths) - 1, True),
        teacher_tap=(len(teacher.depths) - 1, True),
        teacher_px=teacher.image_px,
        alpha=alpha,
        seed=0,
        name="gfm",
    )


def published_model(file: ParityFile) -> StudentTeacher:
    """Our modules with the file's weights, in training mode.

    GfmError names the tensors of the state that are unknown, missing or of another shape.
    """
    model = build_published(file.student, file.teacher, alpha=file.alpha)
    own = {name: file.state[published] for published, name in _places(file).items() if not COMPUTED.search(published)}
    wanted = model.state_dict()
    problems = {
        "unknown": [f"state/{published_name(name)}" for name in own if name not in wanted],
        "missing": [f"state/{published_name(name)}" for name in wanted if name not in own],
        "of another shape": [
            f"state/{published_name(name)} {tuple(own[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in own and own[name].shape != wanted[name].shape
        ],
    }
    told = [f"{what}: {_few(names)}" for what, names in problems.items() if names]
    if told:
        raise GfmError(f"{file.path}: {'; '.join(told)}; state and metadata must be of one model")
    model.load_state_dict(own, strict=True)
    return model.train()


def compare(file: ParityFile, model: StudentTeacher) -> list[Row]:
    """One forward and backward pass of the file's input: a row for each expected quantity and each stored gradient."""
    model.zero_grad()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    stored = {own_place(name) if _known(name) else name: name for name in file.gradients}
    unknown = [f"grad/{name}" for own, name in stored.items() if own not in trainable]
    if unknown:
        raise GfmError(f"{file.path}: {_few(unknown)}: no trained parameter of this model; the teacher is frozen")

    out = model(file.image, file.mask)
    out.losses.total.backward()
    found = {
        "encoder_map": out.encoder_map,
        "student_feature": out.student_feature,
        "teacher_feature": out.teacher_feature,
        "reconstruction": out.reconstruction,
        "loss_mim": out.losses.mim,
        "loss_feat": out.losses.distillation,
        "loss": out.losses.total,
        "grad_norm": nn.utils.clip_grad_norm_(trainable.values(), math.inf),
    }
    rows = []
    for name, value in found.items():
        expected = file.expected[name]
        _same_shape(file.path, f"expected/{name}", value, expected)
        rows.append(row(name, value, expected.reshape(value.shape), LOSS_FLOOR if name in LOSSES else FLOOR))
    for own, name in stored.items():
        gradient = trainable[own].grad
        if gradient is None:
            raise GfmError(f"{file.path}: grad/{name}: the loss of this project does not depend on this parameter")
        _same_shape(file.path, f"grad/{name}", gradient, file.gradients[name])
        rows.append(row(f"grad/{name}", gradient, file.gradients[name]))
    return rows


def compare_buffers(file: ParityFile, model: StudentTeacher) -> list[Row]:
    """A row for each stored buffer that is computed here: relative position indices and attention masks."""
    buffers = dict(model.named_buffers())
    rows = []
    for published, name in _places(file).items():
        if not COMPUTED.search(published):
            continue
        if name not in buffers:
            raise GfmError(f"{file.path}: state/{published}: unknown; a network of this metadata has no such buffer")
        _same_shape(file.path, f"state/{published}", buffers[name], file.state[published])
        rows.append(row(f"state/{published}", buffers[name], file.state[published]))
    return rows


def _places(file: ParityFile) -> dict[str, str]:
    """Published names of the state, and where each lies in our modules."""
    unknown = [f"state/{name}" for name in file.state if not _known(name)]
    if unknown:
        raise GfmError(f"{file.path}: {_few(unknown)}: unknown to the published code")
    return {name: own_place(name) for name in file.state}


def _known(published: str) -> bool:
    try:
        own_place(published)
    except WeightsError:
        return False
    return True


def _encoder(network: Swin, name: str) -> Encoder:
    architecture = "swin_base_patch4_window7_224"  # every size of it is overridden
    args = {
        "embed_dim": network.embed_dim,
        "depths": list(network.depths),
        "num_heads": list(network.num_heads),
        "window_size": network.window,
        "patch_size": network.patch_px,
        "mlp_ratio": network.mlp_ratio,
        "qkv_bias": network.qkv_bias,
        "drop_path_rate": 0.0,
    }
    bands = [str(number) for number in range(network.bands)]
    zeros, ones = [0.0] * network.bands, [1.0] * network.bands
    card = EncoderCard(architecture, args, network.image_px, bands, zeros, ones, "live", "random", "")
    backbone = build_backbone(architecture, args, image_px=network.image_px, bands=network.bands, seed=0)
    return Encoder(backbone, card, name)


def _same_shape(path: Path, key: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape and not found.numel() == expected.numel() == 1:
        raise GfmError(f"{path}: {key} is {tuple(expected.shape)}, the model of this metadata has {tuple(found.shape)}")


def _few(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
