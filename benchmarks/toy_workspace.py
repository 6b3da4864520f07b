"""A workspace whose whole chain takes a minute: images, masks and parameters made by code, for tests of the chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
GFM = str(Path(sys.executable).with_name("gfm"))
LAND = {"water": (30, 60, 110), "forest": (40, 90, 40), "sand": (200, 180, 130), "town": (140, 130, 130)}
NETWORK = {
    "name": "swin_tiny_patch4_window7_224",
    "image_px": 64,
    "args": {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4},
}


def make_toy_workspace(folder: Path, *, images: int = 30) -> Path:
    """Write raw imagery of so many images a class and a workspace that reads it; returns the workspace's folder."""
    raw = folder / "raw"
    write_images(raw / "land", images, seed=1)
    write_images(raw / "task", 12, seed=2)
    config = folder / "toy.yaml"
    config.write_text(yaml.safe_dump(parameters(), sort_keys=False), encoding="utf-8")
    subprocess.run([GFM, "workspace", str(config), str(folder / "work")], cwd=REPOSITORY, check=True)
    return folder / "work"


def write_images(folder: Path, count: int, seed: int) -> None:
    """Images in a folder a class: a colour with coarse patches of its own and noise, no two alike."""
    draw = np.random.default_rng(seed)
    for name, colour in LAND.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            patches = draw.integers(-40, 40, (8, 8, 1)).repeat(12, axis=0).repeat(12, axis=1)
            pixels = np.clip(np.array(colour) + patches + draw.integers(-15, 15, (96, 96, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03d}.png")


def parameters() -> dict[str, object]:
    """What the stages do: the whole chain of dvc.yaml, with networks of a few thousand weights."""
    return {
        "seed": 0,
        "device": "cpu",
        "paths": {"raw": "raw"},
        "geopile": {
            "tile_px": 96,
            "shard_mb": 0.5,
            "sources": {"land": {"format": "class-folders", "root": "land", "licence": "CC0-1.0"}},
        },
        "splits": {"val_share": 0.1},
        "teacher": {
            "kind": "supervised",
            "architecture": NETWORK,
            "sources": ["land"],
            "epochs": 1,
            "batch_size": 16,
            "lr": 1e-3,
        },
        "student": {"architecture": NETWORK},
        "encoders": {},
        "pretrain": {
            "gfm": {
                "recipe": "gfm",
                "epochs": 3,
                "batch_size": 16,
                "teacher_px": 64,
                "workers": 1,
                "checkpoint_steps": 2,
                "ema_decay": 0.9,
                "schedule": {"base_lr": 0.02, "warmup_epochs": 1},
            }
        },
        "tasks": {
            "land": {
                "kind": "classification",
                "image_px": 64,
                "data": {"format": "class-folders", "root": "task", "split": {"val_share": 0.2, "test_share": 0.3}},
                "finetune": {"seeds": [0, 1], "epochs": 3, "batch_size": 8},
            }
        },
        "models": ["teacher", "gfm"],
        "evaluate": {"baseline": "teacher"},
        "tracking": {},
        "carbon": {"country_iso": "FRA", "intensity_kg_per_kwh": 0.05},
    }
