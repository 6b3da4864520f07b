"""Settings that contradict each other are one line before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gfm.params import Finetune, Task

SCENES = {"format": "class-folders", "root": "s", "split": {"val_share": 0.2, "test_share": 0.2}}
MASKS = {"format": "image-masks", "root": "b", "split": {"val": ["a"], "test": ["b"]}}


def _told(kind: str, data: dict[str, Any], finetune: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        Task.model_validate({"kind": kind, "data": data, "finetune": finetune})
    (problem,) = error.value.errors()
    return str(problem["msg"])


@pytest.mark.parametrize("mode", ["linear", "knn"])
def test_pixel_tasks_have_no_probe_of_pooled_features(mode: str) -> None:
    told = _told("segmentation", MASKS, {"mode": mode})
    assert f"finetune.mode = {mode} is for classification and multilabel; a segmentation task takes frozen" in told


@pytest.mark.parametrize("setting", [{"mixup": 0.8}, {"cutmix": 1.0}, {"label_smoothing": 0.1}])
def test_masks_are_not_mixed(setting: dict[str, float]) -> None:
    assert "not for a segmentation task; leave them out" in _told("segmentation", MASKS, {"full": setting})


@pytest.mark.parametrize(
    ("finetune", "told"),
    [
        ({"lora": {"rank": 4}}, "lora has no meaning with mode = full; leave it out or set mode = lora"),
        ({"mode": "knn", "full": {"layer_decay": 0.9}}, "full has no meaning with mode = knn"),
        ({"full": {"mixup": 0.8}, "batch_size": 7}, "batch_size = 7 is odd"),
        ({"full": {"schedule": {}}, "lr": 0.1, "epochs": 30}, "lr has no meaning beside full.schedule"),
        ({"full": {"schedule": {}}}, "full.schedule.warmup_epochs = 20 is more than epochs = 19"),
        ({"mode": "adapters"}, "Input should be 'full', 'frozen', 'linear', 'knn' or 'lora'"),
        ({"mode": "lora", "lora": {"rank": 0}}, "greater than 0"),
        ({"full": {"layer_decay": 0.0}}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(finetune: dict[str, Any], told: str) -> None:
    found = _told("classification", SCENES, {"epochs": 19, **finetune})
    assert told in found and "\n" not in found


def test_the_mode_is_full_unless_another_is_named() -> None:
    assert Finetune().mode == "full"
