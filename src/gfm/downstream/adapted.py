"""Adapted models on disk: beside the encoder's folder, only what the adaptation made; saving and loading."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gfm.downstream.adaptation import Adaptation, build_adaptation
from gfm.downstream.adaptation.adaptation import HEAD
from gfm.downstream.tasks import TaskModel, TaskSpec, build_model
from gfm.errors import WeightsError
from gfm.layout import encoder_folder
from gfm.models.encoder import load_encoder
from gfm.models.encoder_file import WEIGHTS
from gfm.params import Finetune
from gfm.tracking.provenance import content_hash

KEY = "gfm"  # of the file's metadata


def save_adapted(folder: Path, model: TaskModel, adaptation: Adaptation, *, kind: str, encoder: str, seed: int) -> None:
    """Write `seed-N.safetensors` and, for adapters, `seed-N.adapters.safetensors` into `folder`.

    The file's metadata says what it takes to build the model again around the encoder `encoder`.
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
