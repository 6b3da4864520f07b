"""One pretraining with what it reads and what its result depends on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import xxhash

from gfm.errors import GfmError
from gfm.models.encoder_file import WEIGHTS, read_card
from gfm.params import Params, Pretraining
from gfm.pretraining.collection import Rows, manifest_of, read_rows
from gfm.pretraining.data import CropDataset, StepBatches
from gfm.pretraining.decoded_cache import DecodedCache
from gfm.pretraining.distinct import repeats_in, without
from gfm.pretraining.features import WHOLE
from gfm.pretraining.networks import TEACHER, uses_teacher
from gfm.pretraining.recipes import Recipe
from gfm.pretraining.repeats import Repeat
from gfm.pretraining.trainer import Processes, TimedCheckpoint, check_batch
from gfm.tracking.provenance import data_version
from gfm.tracking.runs import Run, child_run

# Of a pretraining's parameters: what does not change the weights that come out.
INDIFFERENT = (
    "workers",
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep_checkpoints",
    "budget",
    "probe",
    "sharding",
    "decoded_cache",  # but its decoded_px
    "resize_on",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One pretraining: its parameters, its rows, its batches."""

    params: Params
    name: str
    run: Pretraining
    train: Rows
    val: Rows
    batches: StepBatches
    processes: Processes
    repeats: list[Repeat]  # training images that were left out for others
    decoded: DecodedCache | None = None  # the images that its crops are cut from; None: the shards'

    @classmethod
    def prepare(cls, params: Params, name: str) -> Job:
        """Read the rows of `pretrain.NAME`; GfmError where there is no such pretraining or no whole batch."""
        if name not in params.pretrain:
            raise GfmError(f"pretrain.{name}: no such pretraining; there are {', '.join(params.pretrain)}")
        run = params.pretrain[name]
        processes = Processes.from_environment()
        train, val = read_rows("train", without=run.without), read_rows("val", without=run.without)
        repeats: list[Repeat] = []
        if run.duplicate_cosine is not None:
            belongs = {"data": data_hashes(run), "teacher": teacher_version()}
            repeats = repeats_in(params, name, train, run.duplicate_cosine, belongs, processes)
            train = without(train, repeats)
        check_batch(len(train), run.batch_size, processes, key=f"pretrain.{name}.batch_size", parts=run.accumulate)
        batches = StepBatches(
            len(train),
            batch_size=run.batch_size,
            epochs=run.epochs,
            seed=params.pretraining_seed(name),
            rank=processes.rank,
            processes=processes.count,
            parts=run.accumulate,
            weights=train.weights(source_weights(params)),
        )
        decoded = None
        if run.decoded_cache:
            bands, manifest = len(params.geopile.bands), manifest_of(run.without)
            decoded = DecodedCache.of_collection(bands, run.decoded_px, f"pretrain.{name}", manifest)
        return cls(params, name, run, train, val, batches, processes, repeats, decoded)

    @property
    def key(self) -> str:
        """Where its parameters stand."""
        return f"pretrain.{self.name}"

    @property
    def seed(self) -> int:
        """Of everything that it draws."""
        return self.params.pretraining_seed(self.name)

    @property
    def data(self) -> dict[str, str | None]:
        """The version of the collection that it trains on, and the source that this is without, if it is."""
        without = self.run.without
        return data_version(manifest_of(without)) | ({} if without is None else {"without": without})

    @property
    def sharded(self) -> bool:
        """Whether its parameters are sharded; one process has nobody to share with."""
        return self.run.sharding == "full" and self.processes.count > 1

    @property
    def part_size(self) -> int:
        """Images that a process takes at once."""
        return self.run.batch_size // (self.processes.count * self.run.accumulate)

    def crops(self, rows: Rows, recipe: Recipe | None = None, **more: Any) -> CropDataset:
        """Crops of `rows`, with the recipe's masks."""
        return CropDataset(
            rows,
            bands=len(self.params.geopile.bands),
            px=self.params.student.architecture.image_px,
            seed=self.seed,
            masking=recipe.masking if recipe else None,
            decoded=self.decoded.of(rows) if self.decoded else None,
            resize_on=self.run.resize_on,
            **{"crop": self.run.crop, "reduced": self.run.reduced_decoding, **more},
        )

    def whole(self, rows: Rows) -> CropDataset:
        """The images of `rows` as wholes."""
        return self.crops(rows, crop=WHOLE, reduced=False)

    def checkpoint(self) -> TimedCheckpoint:
        """Where and when it is saved, and what it must agree with to be resumed."""
        return TimedCheckpoint(
            self.name,
            self._depends_on(),
            self.batches,
            minutes=self.run.checkpoint_minutes,
            steps=self.run.checkpoint_steps,
            keep=self.run.keep_checkpoints,
        )

    def tracked(self, resume_run_id: str | None = None) -> AbstractContextManager[Run]:
        """Its run in MLflow: a new one, or the one that it began before it was interrupted."""
        settings = self.run.model_dump(mode="json") | {"student": self.params.student.model_dump(mode="json")}
        name = f"pretrain {self.name}"
        return child_run(
            self.params,
            name=name,
            kind="pretrain",
            settings=settings,
            seed=self.seed,
            resume_run_id=resume_run_id,
            data=self.data,
        )

    def _depends_on(self) -> dict[str, Any]:
        # Its seed stands below, wherever in the file it was given.
        left_out = {*INDIFFERENT, "seed"}
        run = {name: value for name, value in self.run.model_dump(mode="json").items() if name not in left_out}
        weights = source_weights(self.params)
        return {
            "pretrain": run,
            **({"weights": weights} if len(set(weights.values())) > 1 else {}),
            "student": self.params.student.model_dump(mode="json"),
            "seed": self.seed,
            "data": data_hashes(self.run),
            "teacher": teacher_version() if uses_teacher(self.run) else None,
        }


def source_weights(params: Params) -> dict[str, float]:
    """How often an image of each source is drawn, against others."""
    return {name: source.weight for name, source in params.geopile.sources.items()}


def data_hashes(run: Pretraining) -> dict[str, Any]:
    """The hashes of the collection that it trains on, and its splits."""
    data = data_version(manifest_of(run.without))
    return {"manifest": data["manifest"], "splits": data["splits"]}


def teacher_version() -> dict[str, Any]:
    """What distinguishes one teacher from another."""
    card, weights = read_card(TEACHER), TEACHER / WEIGHTS
    return {
        "architecture": card.architecture,
        "mean": card.mean,
        "std": card.std,
        "weights": xxhash.xxh3_128_hexdigest(weights.read_bytes()) if weights.exists() else None,
    }
