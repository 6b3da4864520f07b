"""Adapted models as `gfm finetune` leaves them, but with weights that were drawn and never trained: a second's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gfm.downstream.adaptation import build_adaptation
from gfm.downstream.adapted import save_adapted
from gfm.downstream.tasks import TaskModel, TaskSpec, build_model
from gfm.downstream.trained_on import TrainedOn
from gfm.layout import encoder_folder, task_folder
from gfm.models.encoder import load_encoder
from gfm.params import Finetune, Imagery

PLACES = {"val": ["a"], "test": ["b"]}
FORMATS: dict[str, dict[str, Any]] = {
    "segmentation": {"format": "image-masks", "classes": ["ground", "roof", "water"], "split": PLACES},
    "regression": {"format": "image-targets", "target": {"unit": "t/ha"}, "split": PLACES},
    "super-resolution": {"format": "spacenet2", "split": PLACES},
    "change": {"format": "oscd", "split": PLACES},
    "classification": {"format": "class-folders", "split": {"val_share": 0.2, "test_share": 0.2}},
    "multilabel": {"format": "labels-table", "split": {"val_share": 0.2, "test_share": 0.2}},
}
RGB: dict[str, Any] = {"dtype": "uint8", "bands": {"R": 0.66, "G": 0.56, "B": 0.49}, "scale": 1 / 255}
CLASSES = ("ground", "roof", "water")


@pytest.fixture
def adapted(workplace) -> Callable[..., TaskModel]:
    """`adapted(kind)` declares the task `t` of a kind, and leaves models/tasks/t/teacher; gives the model."""

    def make(kind: str, chip: int = 32, seeds: tuple[int, ...] = (0,), fine: int = 128, **changes: Any) -> TaskModel:
        imagery = RGB | changes.pop("imagery", {})
        number = kind == "number"  # of an image as a whole
        kind = "regression" if number else kind
        data = {**FORMATS["multilabel" if number else kind], "root": "t", "imagery": imagery}
        workplace.declare(t={"kind": kind, "data": data, **changes})
        workplace.encoders()
        folder = task_folder("t", "teacher")
        folder.mkdir(parents=True)
        settings = Finetune()
        maps = kind in ("segmentation", "change")
        given: dict[str, Any] = {
            "name": "t",
            "classes": {"change": ("same", "other")}.get(kind, CLASSES if "re" not in kind[:2] else ()),
            "dates": 2 if kind == "change" else 1,
            "bands": 3,
            "image_px": 32,
            "mask_px": chip if maps else None,
            "unit": "t/ha" if kind == "regression" else "",
        }
        if kind == "regression":
            given |= {"number_px": None if number else chip, "number_mean": 20.0, "number_std": 5.0}
        if kind == "super-resolution":
            given |= {"image_px": chip, "encoder_px": 32, "number_px": fine, "number_bands": 3}
        for seed in seeds:
            torch.manual_seed(seed)
            encoder = load_encoder(encoder_folder("teacher"), image_px=32, seed=seed)
            model = build_model(kind, encoder, TaskSpec(**given))
            adaptation = build_adaptation(settings)
            adaptation.prepare(model)
            about = {"kind": kind, "encoder": "teacher", "seed": seed}
            trained_on = TrainedOn.of(("R", "G", "B"), Imagery.model_validate(imagery), [(chip, chip)])
            save_adapted(folder, model, adaptation, trained_on=trained_on, **about)
        rows = "".join(f"teacher,t,iou,0.{5 + seed},{seed},{part}\n" for seed in seeds for part in ("val", "test"))
        (folder / "scores.csv").write_text(f"model,task,metric,score,seed,split\n{rows}")
        return model.eval()

    return make
