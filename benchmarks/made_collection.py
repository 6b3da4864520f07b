"""Collections made by `gfm assemble` from images made by code, in the working folder, for the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gfm import layout
from gfm.geopile.assemble import assemble
from gfm.params import Params

SCENE_BANDS = {"R": None, "G": None, "B": None, "NIR": None}
LABELLED = {"format": "class-folders", "root": "photos", "licence": "none"}


def params(sources: dict[str, Any], raw: Path, **geopile: Any) -> Params:
    """Parameters of these sources below `raw`; what a whole file must have besides is there and never read."""
    data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    bands = geopile.get("bands", ["R", "G", "B"])
    even = {"mean": [0.5] * len(bands), "std": [0.2] * len(bands)}
    return Params.model_validate(
        {
            "device": "cpu",
            "paths": {"raw": str(raw)},
            "geopile": {"workers": 1, "sources": sources, **geopile},
            "teacher": {
                "kind": "timm",
                "architecture": {},
                "weights": "hub",
                "licence": "none",
                "normalisation": even,
            },
            "student": {"normalisation": even},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {
                "t": {
                    "kind": "classification",
                    "data": {**data, "imagery": {"bands": dict.fromkeys(bands)}},
                }
            },
        }
    )


def collect(raw: Path, **geopile: Any) -> None:
    """Assemble the class folders `raw`/photos here, and put all images in the training split."""
    assemble(params({"photos": LABELLED}, raw, near_duplicate_bits=0, **geopile))
    ids = pq.read_table(layout.MANIFEST, columns=["id"])["id"]
    layout.SPLITS.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "split": ["train"] * len(ids)}), layout.COLLECTION_SPLIT)
