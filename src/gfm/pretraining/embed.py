"""`gfm embed NAME`: an encoder's pooled features of every image of the collection, and which images repeat others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

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
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset, FixedBatches
from gfm.pretraining.feature_blocks import FeatureBlocks, forget_features
from gfm.pretraining.features import WHOLE, feature_batches
from gfm.pretraining.record import RunRecord
from gfm.pretraining.repeats import Repeat, find_repeats, write_repeats
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import data_version, provenance
from gfm.tracking.runs import child_run


def embed(params: Params, name: str) -> None:
    """Write `data/embeddings/NAME`, whole or not at all, as `embeddings.NAME` says.

    `features.parquet` (id, source, split and feature: the mean of the encoder's last map over the centred square of the
    image, half floats), `duplicates.csv` (training images and the one that stands for each), `summary.json` (of which
    encoder and collection they are) and `run.json`. GfmError where encoder or collection are missing or do not fit.
    """
    settings = params.embeddings.get(name, Embedding())
    purpose = f"embed-{name}"
    origin = provenance(params.seed)  # of the code and data that run now
    splits = {"train": read_rows("train"), "val": read_rows("val")}
    images = sum(len(rows) for rows in splits.values())
    look = Look.of(params, name, settings)
    with (
        new_folder(layout.EMBEDDINGS / name) as out,
        child_run(params, name, "embed", settings.model_dump(mode="json"), params.seed) as tracked,
    ):
        tracked.dataset(layout.COLLECTION.name, layout.COLLECTION, data_version()["dvc"])
        blocks = {part: look.blocks(rows, purpose) for part, rows in splits.items()}
        forget_features(purpose, but=list(blocks.values()))
        with measure(params.carbon, f"embed {name}") as meter:
            found = {part: look.features(rows, blocks[part], part) for part, rows in splits.items()}
            features = {part: looked.features for part, looked in found.items()}
            repeats: list[Repeat] = []
            if settings.duplicate_cosine is not None:
                sources = list(params.geopile.sources)
                repeats = find_repeats(splits["train"], features["train"], sources, settings.duplicate_cosine)
        energy, remembered = meter.energy, sum(looked.remembered for looked in found.values())
        if remembered:
            say(f"embed {name}: {remembered} of {images} images were remembered from a run that did not end")
            energy = replace(energy, method=f"{energy.method}; without {remembered} images of a run that did not end")
        tracked.metrics({"images": images, "duplicates": len(repeats)})
        tracked.energy(energy)
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
            seconds=energy.seconds,
            samples=images - remembered,
            provenance=origin,
            energy=energy.as_dict(),
            run_id=tracked.run_id,
            metrics={"duplicates": len(repeats)},
        )
        record.write(out)
    forget_features(purpose)
    alike = "" if settings.duplicate_cosine is None else f", {len(repeats)} training images repeat others"
    say(f"{layout.EMBEDDINGS / name}: {images} images at {look.image_px} px in {energy.seconds:.0f} s{alike}")


class Looked(NamedTuple):
    """Features, float16 (N, C), on the encoder's device, and how many of them an earlier run has left."""

    features: Tensor
    remembered: int


@dataclass(frozen=True, slots=True)
class Look:
    """An encoder and how it looks at whole images."""

    encoder: Encoder
    image_px: int
    batch_size: int
    workers: int
    depends: Mapping[str, Any]  # what features depend on besides the images

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
        depends = {
            "card": asdict(read_card(folder)),
            "weights": weights_hash(folder),
            "seed": params.seed,  # of an encoder that is drawn
            "image_px": image_px,
            "device": device.type,
            "torch": torch.__version__,
        }
        return cls(encoder.to(device), image_px, settings.batch_size, settings.workers, depends)

    def blocks(self, rows: Rows, purpose: str) -> FeatureBlocks:
        """Where the features of these rows are remembered while they are made; `forget_features` when all is done."""
        return FeatureBlocks.of(purpose, rows, self.encoder.channels[-1], self.batch_size, self.depends)

    def features(self, rows: Rows, blocks: FeatureBlocks, what: str) -> Looked:
        """Pooled features of whole images; GfmError where one is not finite as half a float."""
        images = CropDataset(rows, bands=len(self.encoder.bands), px=self.image_px, crop=WHOLE, seed=0)
        known = {block: done for block in range(len(blocks)) if (done := blocks.read(block)) is not None}
        remembered = sum(map(len, known.values()))
        lacking = [block for block in range(len(blocks)) if block not in known]
        batches = FixedBatches(len(rows), batch_size=self.batch_size, epoch=VALIDATION_EPOCH)
        batches.batches = [batches.batches[number] for block in lacking for number in blocks.batches(block)]
        label = f"features of {self.encoder.name}, {what}"
        begun: list[Tensor] = []
        for batch in feature_batches(self.encoder, images, batches, workers=self.workers, what=label):
            begun.append(batch)
            if len(begun) < len(blocks.batches(lacking[0])):
                continue
            features, begun, block = torch.cat(begun).to(torch.float16), [], lacking.pop(0)
            if not features.isfinite().all():
                fault = "gives features that are not finite as half floats; check its weights"
                raise GfmError(f"{self.encoder.name}: {fault}")
            blocks.write(block, features)
            known[block] = features
        none = torch.empty((0, blocks.channels), dtype=torch.float16)
        whole = torch.cat([none, *(known[block] for block in range(len(blocks)))])
        return Looked(whole.to(next(self.encoder.parameters()).device), remembered)


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
