"""A tiny chain on disk: collection, task index and splits made by hand, for tests of what comes after assembly."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gfm.imagery.hashing import dhash, dihedral_dhashes, pixel_hash
from gfm.layout import COLLECTION, MANIFEST, TASKS
from gfm.params import Params

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Bounds = tuple[float, float, float, float]


@dataclass
class Chain:
    """Rows of the manifest and of one task; `write` puts them where the stages look."""

    params: Params
    images: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def image(self, name: str, picture: Picture, place: str | None = None, bounds: Bounds | None = None) -> str:
        identity = f"drawn/{name}.jpg"
        sides = dict(zip(("west", "south", "east", "north"), bounds or (None,) * 4, strict=True))
        self.images.append(
            {
                "id": identity,
                "source": "drawn",
                "place": place or identity,
                "file": f"drawn/{name}.jpg",
                "label": "land",
                "shard": "00000.tar",
                "offset": 512,
                "size": 100,
                "width": picture.shape[1],
                "height": picture.shape[0],
                "gsd_m": 1.0,
                "crs": None,
                "date": None,
                "licence": "CC0",
                "entropy_bits": 7.0,
                "contrast": 40.0,
                "sharpness": 500.0,
                "nodata_share": 0.0,
                "cloud_share": None,
                "pixel_hash": pixel_hash(picture),
                "dhash": dhash(picture),
                **sides,
            }
        )
        return identity

    def sample(
        self, name: str, pictures: Sequence[Picture], split: str, place: str | None = None, bounds: Bounds | None = None
    ) -> str:
        sides = dict(zip(("west", "south", "east", "north"), bounds or (None,) * 4, strict=True))
        self.samples.append(
            {
                "id": name,
                "place": place or name,
                "split": split,
                "inputs": json.dumps([[f"t/{name}"]] * len(pictures)),
                "target": None,
                "labels": json.dumps(["land"]),
                "x": 0,
                "y": 0,
                "width": 64,
                "height": 64,
                "pixel_hashes": json.dumps([pixel_hash(picture) for picture in pictures]),
                "dhashes": json.dumps([dihedral_dhashes(picture) for picture in pictures]),
                "content": f"{len(self.samples):032x}",
                **sides,
            }
        )
        return name

    def write(self) -> None:
        (COLLECTION / "shards").mkdir(parents=True, exist_ok=True)
        (COLLECTION / "shards" / "00000.tar").write_bytes(bytes(1024))
        floats = dict.fromkeys(("west", "south", "east", "north", "gsd_m", "cloud_share"), "float64")
        texts = dict.fromkeys(("crs", "date"), "str")
        manifest = pd.DataFrame(self.images).sort_values("id").astype(floats | texts)
        manifest.to_parquet(MANIFEST, index=False)
        kept = len(self.images)
        counts = {"listed": kept, "met": kept, "quarantined": 0, "images": kept, "kept": kept, "dropped": {}}
        (COLLECTION / "summary.json").write_text(json.dumps({"images": kept, "sources": {"drawn": counts}}))
        TASKS.mkdir(parents=True, exist_ok=True)
        index = pd.DataFrame(self.samples).sort_values("id")
        index = index.astype(dict.fromkeys(("west", "south", "east", "north"), "float64"))
        index.to_parquet(TASKS / "t.parquet", index=False)
        meta = {"kind": "classification", "classes": ["land"], "counts": index["split"].value_counts().to_dict()}
        meta |= {key: {"train": 0, "val": 0, "pairs": []} for key in ("same_ground", "near_duplicates")}
        meta |= {"met": len(index), "quarantined": 0}
        (TASKS / "t.json").write_text(json.dumps(meta))


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """An empty chain in an empty working folder, with one source `drawn` and one task `t`."""
    monkeypatch.chdir(tmp_path)
    task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    params = Params.model_validate(
        {
            "geopile": {"sources": {"drawn": {"format": "class-folders", "root": "drawn", "licence": "CC0"}}},
            "splits": {"val_share": 0.25},
            "teacher": {"kind": "supervised", "architecture": {}, "sources": ["drawn"]},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": task}},
        }
    )
    return Chain(params)


@pytest.fixture
def picture() -> Callable[..., Picture]:
    """Draws a picture of a seed: soft shapes with detail, (H, W, 3) uint8."""

    def draw(seed: int, side: int = 96) -> Picture:
        dice = np.random.default_rng(seed)
        shapes = np.kron(dice.integers(0, 200, (12, 12, 3)), np.ones((side // 12, side // 12, 1)))
        return np.clip(shapes + dice.integers(0, 40, (side, side, 3)), 0, 255).astype(np.uint8)

    return draw
