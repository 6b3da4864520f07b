"""A working folder with a tiny collection, made by hand: two labelled sources, one shard, a split."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from gfm.models.backbone import build_backbone
from gfm.models.encoder import save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.params import Params
from gfm.pretraining.batch import Batch
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.run import pretrain

TINY: dict[str, Any] = {
    "name": "swin_tiny_patch4_window7_224",
    "image_px": 64,
    "args": {
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "drop_path_rate": 0.1,
    },
}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and no codecarbon, which takes seconds to start: training must do without it anyhow."""
    torch.set_num_threads(1)
    monkeypatch.setitem(sys.modules, "codecarbon", None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, holding data/geopile and data/splits."""
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path, images=24)
    return tmp_path


@pytest.fixture
def uneven(folder: Path) -> None:
    """Another collection: 23 training images, no multiple of a batch, and 10 held out: five batches of two."""
    shutil.rmtree(folder / "data")
    write_collection(folder, images=33)


@pytest.fixture
def teacher(folder: Path) -> Path:
    """A finished teacher of the tiny architecture, without the time to train it."""
    args = TINY["args"]
    backbone = build_backbone(TINY["name"], args, image_px=64, bands=3, seed=77)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    card = EncoderCard(TINY["name"], args, 64, ["R", "G", "B"], mean, std, "live", "supervised", "CC0")
    save_encoder(folder / "models/encoders/teacher", backbone, card)
    return folder / "models/encoders/teacher"


def write_collection(folder: Path, images: int) -> None:
    """Half of the images are dark (class water), half are bright (class sand); every sixth one is held out."""
    rng = np.random.default_rng(5)
    collection, splits = folder / "data/geopile", folder / "data/splits"
    (collection / "shards").mkdir(parents=True)
    splits.mkdir(parents=True)
    shard, rows = b"", []
    for index in range(images):
        bright = index % 2
        image = (rng.integers(0, 60, (70, 80, 3)) + (180 if bright else 10)).astype(np.uint8)
        data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        rows.append(
            {
                "id": f"scenes/{index:02d}.png",
                "source": "scenes",
                "label": "sand" if bright else "water",
                "licence": "CC0",
                "shard": "00000.tar",
                "offset": len(shard),
                "size": len(data),
                "width": 80,
                "height": 70,
            }
        )
        shard += data
    (collection / "shards" / "00000.tar").write_bytes(shard)
    pq.write_table(pa.Table.from_pylist(rows), collection / "manifest.parquet")
    parts = [
        {"id": row["id"], "source": "scenes", "place": row["id"], "split": "val" if i % 6 > 3 else "train"}
        for i, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(parts), splits / "collection.parquet")


@pytest.fixture
def without_drop_path() -> dict[str, Any]:
    """Parts of the parameters with a student whose forward pass is not random."""
    return {"student": {"architecture": {**TINY, "args": {**TINY["args"], "drop_path_rate": 0.0}}}}


@pytest.fixture
def make_params() -> Callable[..., Params]:
    """Parameters of a training that takes a second; keywords replace whole parts, `pretrain` the fields of one run."""

    def make(pretrain: dict | None = None, **parts: object) -> Params:
        run = {
            "recipe": "gfm",
            "epochs": 3,
            "batch_size": 4,
            "workers": 0,
            "schedule": {"base_lr": 0.1, "warmup_epochs": 1},
            **(pretrain or {}),
        }
        if run["recipe"] in ("gfm", "distill", "gfm-fast"):
            run.setdefault("teacher_px", 64)
        raw = {
            "device": "cpu",
            "geopile": {"sources": {"scenes": {"format": "class-folders", "root": "scenes", "licence": "CC0"}}},
            "teacher": {
                "kind": "supervised",
                "architecture": TINY,
                "sources": ["scenes"],
                "epochs": 3,
                "batch_size": 4,
                "lr": 3e-3,
            },
            "student": {"architecture": TINY},
            "pretrain": {"gfm": run},
            "tasks": {
                "none": {
                    "kind": "classification",
                    "data": {"format": "class-folders", "root": "x", "split": {"val_share": 0.1, "test_share": 0.1}},
                }
            },
            "tracking": {"uri": "none"},
        }
        return Params.model_validate(json.loads(json.dumps(raw | parts)))

    return make


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Params, int], None]:
    """A pretraining `gfm` of these parameters that dies at the beginning of a step."""

    def train(params: Params, at: int) -> None:
        step = RecipeModule.training_step

        def dying(self: RecipeModule, batch: Batch, batch_idx: int) -> Any:
            if self.global_step == at:
                raise KeyError("killed")
            return step(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(RecipeModule, "training_step", dying)
            with pytest.raises(KeyError):
                pretrain(params, "gfm")

    return train


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """Of processes that a test starts: one thread, and no codecarbon, whose start takes seconds."""
    (folder / "without").mkdir()
    (folder / "without" / "codecarbon.py").write_text("raise ImportError('left out of this test')\n")
    path = os.pathsep.join(filter(None, (str(folder / "without"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.fixture
def write_params(make_params) -> Callable[..., None]:
    """Write params.yaml."""

    def write(**settings: object) -> None:
        Path("params.yaml").write_text(
            yaml.safe_dump(make_params(**settings).model_dump(mode="json", exclude_unset=True))
        )

    return write
