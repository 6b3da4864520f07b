"""Tiny tasks of every kind over a tiny transformer, and the model that a fine-tuning leaves in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder, save_encoder
from gfm.models.encoder_file import EncoderCard

TRANSFORMER = "test_vit"
PX = 32


def card(architecture: str = TRANSFORMER, **changes: Any) -> EncoderCard:
    """The description of an encoder of small images."""
    told: dict[str, Any] = {
        "architecture": architecture,
        "model_args": {},
        "image_px": PX,
        "bands": ["R", "G", "B"],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "batch_norm": "live",
        "origin": "imported",
        "licence": "CC0",
    }
    return EncoderCard(**{**told, **changes})


def encoder(architecture: str = TRANSFORMER, **args: Any) -> Encoder:
    """An encoder with random weights."""
    backbone = build_backbone(architecture, args, image_px=PX, bands=3, seed=1)
    return Encoder(backbone, card(architecture, model_args=args), architecture)


@pytest.fixture
def make_encoder() -> Callable[..., Encoder]:
    return encoder


@pytest.fixture
def task(workplace: Any, drawing: Any) -> Callable[..., Any]:
    """A workplace with one indexed task `t` of a kind, over the encoder `teacher`, a tiny transformer."""

    def make(kind: str, architecture: str = TRANSFORMER, **finetune: Any) -> Any:
        data = {"classification": _scenes, "multilabel": _patches, "segmentation": _masks}[kind](workplace, drawing)
        workplace.declare(t={"kind": kind, "data": data, "finetune": drawing.short | finetune})
        folder = workplace.folder / "models/encoders/teacher"
        save_encoder(folder, encoder(architecture).backbone, card(architecture))
        code, printed = workplace.gfm("index")
        assert code == 0, printed
        return workplace

    return make


def _scenes(workplace: Any, drawing: Any) -> dict[str, Any]:
    for name, colour in (("water", 40), ("sand", 200)):
        for number in range(12):
            picture = np.clip(workplace.noise(18, 18) // 6 + colour, 0, 255).astype(np.uint8)
            drawing.picture(workplace.raw / "s" / name / f"{number}.png", picture)
    return {"format": "class-folders", "root": "s", "split": {"val_share": 0.25, "test_share": 0.25}}


def _patches(workplace: Any, drawing: Any) -> dict[str, Any]:
    for number in range(14):
        folder = workplace.raw / "ben" / f"patch_{number}"
        for band in ("B04", "B03", "B02"):
            pixels = workplace.dice.integers(0, 1500, (12, 12)) + 1500 * (number % 2)
            drawing.band(folder / f"{band}.tif", pixels, 500_000 + 1_000 * number)
        labels = ["Pastures", "Arable land"][: 1 + number % 2]
        (folder / "meta.json").write_text(json.dumps({"labels": labels}))
    split = {"val": [f"patch_{i}" for i in range(4)], "test": [f"patch_{i}" for i in range(4, 8)]}
    return {"format": "bigearthnet", "root": "ben", "split": split}


def _masks(workplace: Any, drawing: Any) -> dict[str, Any]:
    for area in ("north", "south", "east"):
        for number in range(5):
            mask = np.zeros((20, 24), np.uint8)
            mask[4:12, 6:18] = 255
            image = workplace.noise(20, 24) // 3
            image[mask > 0] += 160
            drawing.picture(workplace.raw / "b" / area / "images" / f"{number}.png", image)
            drawing.picture(workplace.raw / "b" / area / "masks" / f"{number}.png", mask)
    data: dict[str, Any] = drawing.segmentation()["data"]
    return data


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that `gfm finetune` saved, as they were in memory."""
    from gfm.downstream import adapted, seeds

    found: list[Any] = []

    def keep(folder: Any, model: Any, *others: Any, **more: Any) -> None:
        found.append(model)
        adapted.save_adapted(folder, model, *others, **more)

    monkeypatch.setattr(seeds, "save_adapted", keep)
    return found
