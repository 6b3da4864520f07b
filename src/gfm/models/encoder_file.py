"""An encoder's folder on disk: `config.json` in timm's `local-dir:` format, with what this project knows under `gfm`.

Importing this needs no torch, so that an untrained encoder is described in no time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from gfm.errors import WeightsError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

BatchNorm = Literal["live", "frozen"]
Origin = Literal["random", "supervised", "imported", "pretrained"]


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What an encoder is: enough to build it, to feed it, and to say where it comes from."""

    architecture: str  # timm's name
    model_args: dict[str, Any]  # of timm.create_model; img_size is set from image_px where timm takes it
    image_px: int  # side of the square input that the weights were made with
    bands: list[str]  # of the input, in order
    mean: list[float]  # of each band, values in [0, 1]
    std: list[float]
    batch_norm: BatchNorm  # frozen: statistics never move, not even when fine-tuned
    origin: Origin  # random: described without weights, drawn from a seed when loaded
    licence: str
    model_sha256: str = ""  # of model.safetensors, so that the card tells one encoder from another; empty: no weights
    wavelengths_um: list[float | None] = field(default_factory=list)  # of each band; empty: not known
    unshifted_stages: list[int] = field(default_factory=list)  # of a Swin, 1 the finest: their windows never shift
    parents: list[str] = field(default_factory=list)  # encoders or weight files that it was made from
    provenance: dict[str, Any] = field(default_factory=dict)
    energy: dict[str, Any] = field(default_factory=dict)


def write_card(folder: Path, card: EncoderCard, *, fixed_px: bool = False) -> None:
    """Write `config.json`, which timm reads as well; the folder is made where it is missing.

    `fixed_px` has timm build the network for `image_px`, as networks with windows or position tables need.
    """
    own = asdict(card)
    config = {
        "architecture": own.pop("architecture"),
        "num_classes": 0,
        "model_args": {**own.pop("model_args"), "in_chans": len(card.bands)},
        "pretrained_cfg": {
            "input_size": [len(card.bands), card.image_px, card.image_px],
            "fixed_input_size": fixed_px,
            "mean": own.pop("mean"),
            "std": own.pop("std"),
            "num_classes": 0,
            "license": card.licence,
        },
        "gfm": own,
    }
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{CONFIG}.new"
    unfinished.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(folder / CONFIG)


def read_card(folder: Path) -> EncoderCard:
    """Read `config.json`; WeightsError where it is missing or lacks what an encoder needs."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such encoder; run {_maker(folder.name)} first") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from None
    try:
        args = dict(config["model_args"])
        args.pop("in_chans", None)
        card = EncoderCard(
            architecture=config["architecture"],
            model_args=args,
            mean=config["pretrained_cfg"]["mean"],
            std=config["pretrained_cfg"]["std"],
            **config["gfm"],
        )
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: not an encoder's card: {error}; make the encoder again") from None
    if card.origin not in get_args(Origin) or card.batch_norm not in get_args(BatchNorm):
        raise WeightsError(f"{path}: gfm.origin = {card.origin}, gfm.batch_norm = {card.batch_norm}: not known")
    if not len(card.mean) == len(card.std) == len(card.bands):
        raise WeightsError(
            f"{path}: {len(card.bands)} bands, but {len(card.mean)} means and {len(card.std)} standard deviations"
        )
    if len(card.wavelengths_um) not in (0, len(card.bands)):
        raise WeightsError(
            f"{path}: {len(card.bands)} bands, but {len(card.wavelengths_um)} wavelengths; give each one"
        )
    return card


def _maker(name: str) -> str:
    return {"teacher": "`gfm teacher`", "random": "`gfm untrained`"}.get(name, f"`gfm pretrain {name}`")
