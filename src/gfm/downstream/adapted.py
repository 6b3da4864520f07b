"""Adapted models on disk: beside the encoder's folder, only what the adaptation made; saving and loading."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gfm.downstream.adaptation import Adaptation, build_adaptation
from gfm.downstream.adaptation.adaptation import HEAD
from gfm.downstream.tasks import TaskModel, TaskSpec, build_model
from gfm.downstream.trained_on import TrainedOn
from gfm.errors import WeightsError
from gfm.layout import encoder_folder
from gfm.models.encoder import load_encoder
from gfm.models.encoder_file import WEIGHTS
from gfm.models.weights_hash import sha256_of
from gfm.params import Finetune
from gfm.tracking.provenance import content_hash

KEY = "gfm"  # of the file's metadata


def save_adapted(
    folder: Path,
    model: TaskModel,
    adaptation: Adaptation,
    *,
    kind: str,
    encoder: str,
    seed: int,
    trained_on: TrainedOn,
) -> None:
    """Write `seed-N.safetensors` and, for adapters, `seed-N.adapters.safetensors` into `folder`.

    The file's metadata says what it takes to build the model again around the encoder `encoder`, and to feed it.
    """
    mode = adaptation.settings.mode
    section = getattr(adaptation.settings, mode, None)
    files = adaptation.saved(model)
    about: dict[str, Any] = {
        "kind": kind,
        "spec": asdict(model.spec),
        "finetune": {"mode": mode} | ({} if section is None else {mode: section.model_dump(mode="json")}),
        "encoder": encoder,
        "encoder_digest": content_hash(encoder_folder(encoder) / WEIGHTS),  # None: drawn from the seed
        "seed": seed,
        "files": list(files),
        "trained_on": trained_on.as_json(),
    }
    for suffix, tensors in files.items():
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        path = _file(folder, seed, suffix)
        path.touch()
        readable = path.stat().st_mode
        save_file(plain, path, metadata={KEY: json.dumps(about, sort_keys=True)})
        path.chmod(readable)  # safetensors makes files that only their owner can read


def load_adapted(folder: Path, seed: int, encoder: Path | None = None) -> TaskModel:
    """The adapted model of one seed, in evaluation mode: what it predicts is what was scored.

    `folder` is `models/tasks/TASK/MODEL`; `encoder` the folder of the encoder that it was made from, else the one of
    that name under `models/encoders`. WeightsError where a file is missing, or was made around another encoder.
    """
    path = _file(folder, seed, HEAD)
    about = _about(path)
    settings = Finetune.model_validate(about["finetune"])
    base = encoder or encoder_folder(about["encoder"])
    if settings.mode != "full" and content_hash(base / WEIGHTS) != about["encoder_digest"]:
        raise WeightsError(f"{path}: made around other weights than {base / WEIGHTS} holds; run `gfm finetune` again")
    spec = TaskSpec(**{**about["spec"], "classes": tuple(about["spec"]["classes"])})
    side = spec.encoder_px or spec.image_px
    model = build_model(about["kind"], load_encoder(base, image_px=side, seed=about["seed"]), spec)
    adaptation = build_adaptation(settings)
    adaptation.prepare(model)
    files = {suffix: _tensors(_file(folder, seed, suffix)) for suffix in about["files"]}
    try:
        adaptation.restore(model, files)
    except (RuntimeError, KeyError) as error:
        raise WeightsError(f"{path}: not the weights of this model: {' '.join(str(error).split())}") from None
    return model.eval()


@dataclass(frozen=True, slots=True)
class AdaptedFile:
    """What the files of one seed say of themselves."""

    kind: str
    trained_on: TrainedOn
    weights: dict[str, str]  # every file of weights that the model is made of, by its path, and its SHA-256


def describe_adapted(folder: Path, seed: int) -> AdaptedFile:
    """What it takes to feed the model that `load_adapted` gives; WeightsError as there."""
    path = _file(folder, seed, HEAD)
    about = _about(path)
    if "trained_on" not in about:
        raise WeightsError(f"{path}: made before it said what it was trained on; run `gfm finetune` again")
    files = [_file(folder, seed, suffix) for suffix in about["files"]]
    encoder = encoder_folder(about["encoder"]) / WEIGHTS
    if about["finetune"]["mode"] != "full" and encoder.exists():
        files.append(encoder)
    try:
        weights = {file.as_posix(): sha256_of(file) for file in files}
    except FileNotFoundError as error:
        raise WeightsError(f"{error.filename}: no such file; run `gfm finetune` again") from None
    return AdaptedFile(about["kind"], TrainedOn.from_json(about["trained_on"]), weights)


def _file(folder: Path, seed: int, suffix: str) -> Path:
    return folder / f"seed-{seed}{suffix}.safetensors"


def _about(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        about = json.loads(metadata[KEY])
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; run `gfm finetune` first") from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not the weights of an adapted model: {error}; run `gfm finetune` again") from None
    assert isinstance(about, dict)
    return about


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; run `gfm finetune` again") from None
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from None
