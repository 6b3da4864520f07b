"""`gfm embed NAME`: an encoder's pooled features of every image of the collection, and which images repeat others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from gfm import layout
from gfm.compute import use_device
from gfm.errors import GfmError
from gfm.models.encoder import Encoder, load_encoder
from gfm.models.encoder_file import WEIGHTS, read_card
from gfm.models.weights_hash import sha256_of
from gfm.output_folder import new_folder
from gfm.params import Embedding, Params
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.data import CropDataset
from gfm.pretraining.features import WHOLE, pooled_features
from gfm.pretraining.record import RunRecord
from gfm.pretraining.repeats import Repeat, find_repeats, write_repeats
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import data_version, provenance


def embed(params: Params, name: str) -> None:
    """Write `data/embeddings/NAME`, whole or not at all, as `embeddings.NAME` says.

    `features.parquet` (id, source, split and feature: the mean of the encoder's last map over the centred square of the
    image, half floats), `duplicates.csv` (training images and the one that stands for each), `summary.json` (of which
    encoder and collection they are) and `run.json`. GfmError where encoder or collection are missing or do not fit.
    """
    settings = params.embeddings.get(name, Embedding())
    origin = provenance(params.seed)  # of the code and data that run now
    splits = {"train": read_rows("train"), "val": read_rows("val")}
    images = sum(len(rows) for rows in splits.values())
    look = Look.of(params, name, settings)
    with new_folder(layout.EMBEDDINGS / name) as out:
        with measure(params.carbon, f"embed {name}") as meter:
            features = {part: look.features(rows, part) for part, rows in splits.items()}
            repeats: list[Repeat] = []
            if settings.duplicate_cosine is not None:
                sources = list(params.geopile.sources)
                repeats = find_repeats(splits["train"], features["train"], sources, settings.duplicate_cosine)
        write_repeats(out / "duplicates.csv", repeats)
        _write_features(out / "features.parquet", splits, features)
        data = data_version()
        summary = {
            "encoder": name,
            "weights": weights_hash(layout.encoder_folder(name)),
            "image_px": look.image_px,
            "manifest": data["manifest"],
            "splits": data["splits"],
            "images": {part: len(rows) for part, rows in splits.items()},
            "channels": features["train"].shape[1],
            "duplicate_cosine": settings.duplicate_cosine,
            "duplicates": len(repeats),
        }
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        record = RunRecord(
            name=name,
            kind="embedding",
            seed=params.seed,
            seconds=meter.energy.seconds,
            samples=images,
            provenance=origin,
            energy=meter.energy.as_dict(),
            run_id=None,
            metrics={"duplicates": len(repeats)},
        )
        record.write(out)
    alike = "" if settings.duplicate_cosine is None else f", {len(repeats)} training images repeat others"
    say(f"{layout.EMBEDDINGS / name}: {images} images at {look.image_px} px in {meter.energy.seconds:.0f} s{alike}")


@dataclass(frozen=True, slots=True)
class Look:
    """An encoder and how it looks at whole images."""

    encoder: Encoder
    image_px: int
    batch_size: int
    workers: int

    @classmethod
    def of(cls, params: Params, name: str, settings: Embedding) -> Look:
        """The encoder `name`, on the device of the parameters; GfmError where it takes other bands than they have."""
        folder = layout.encoder_folder(name)
        image_px = settings.image_px or read_card(folder).image_px
        encoder = load_encoder(folder, image_px=image_px, seed=params.seed)
        if encoder.bands != params.geopile.bands:
            raise GfmError(
                f"{folder}: takes {', '.join(encoder.bands)}, geopile.bands is {', '.join(params.geopile.bands)}; "
                "name an encoder of these bands"
            )
        device = torch.device("cuda" if use_device(params.device) == "gpu" else "cpu")
        return cls(encoder.to(device), image_px, settings.batch_size, settings.workers)

    def features(self, rows: Rows, what: str) -> Tensor:
        """Pooled features of whole images, float16 (N, C), on the encoder's device.

        GfmError where one is not finite as half a float.
        """
        if not len(rows):
            return torch.empty((0, self.encoder.channels[-1]), dtype=torch.float16)
        images = CropDataset(rows, bands=len(self.encoder.bands), px=self.image_px, crop=WHOLE, seed=0)
        found = pooled_features(
            self.encoder,
            images,
            batch_size=self.batch_size,
            workers=self.workers,
            what=f"features of {self.encoder.name}, {what}",
        )
        features = found.to(torch.float16)
        if not features.isfinite().all():
            raise GfmError(f"{self.encoder.name}: gives features that are not finite as half floats; check its weights")
        return features.to(next(self.encoder.parameters()).device)


def weights_hash(folder: Path) -> str | None:
    """SHA-256 of an encoder's weights; None for one that is drawn from a seed."""
    path = folder / WEIGHTS
    return sha256_of(path) if path.exists() else None


def _write_features(path: Path, splits: dict[str, Rows], features: dict[str, Tensor]) -> None:
    parts = []
    for part, rows in splits.items():
        values = features[part].cpu().numpy().astype(np.float16)
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float16()), values.shape[1])
        parts.append(
            pa.table(
                {
                    "id": rows.table["id"],
                    "source": rows.table["source"],
                    "split": pa.array([part] * len(rows), pa.string()),
                    "feature": column,
                }
            )
        )
    pq.write_table(pa.concat_tables(parts).sort_by("id"), path, compression="zstd")
