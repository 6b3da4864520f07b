"""The whole parameter file, and what must agree between its sections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from gfm.params.downstream import Task
from gfm.params.embeddings import Embedding
from gfm.params.encoders import PublishedEncoder, Student, SupervisedTeacher, Teacher, TimmEncoder
from gfm.params.geopile import Geopile, Splits, Validation
from gfm.params.imagery import Paths
from gfm.params.pretraining import DistillPretraining, GfmFastPretraining, Pretraining
from gfm.params.results import Carbon, Evaluate, Promotion, Tracking
from gfm.params.section import Contradictions, Name, Section, Seed
from gfm.params.variants import variant_faults

# The last two are the folders beside the checkpoints that hold the teacher's features and decoded images.
RESERVED = ("random", "teacher", "teacher-features", "decoded-images")


class Params(Section):
    """The whole parameter file."""

    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    paths: Paths = Paths()
    geopile: Geopile
    splits: Splits = Splits()
    validation: Validation = Validation()
    teacher: Teacher
    student: Student = Student()
    encoders: dict[Name, PublishedEncoder] = {}  # published or registered weights that `models` may name
    embeddings: dict[Name, Embedding] = {}  # encoders whose view of the collection is drawn; usually the teacher
    pretrain: dict[Name, Pretraining] = Field(min_length=1)
    tasks: dict[Name, Task] = Field(min_length=1)
    models: list[Name] = ["random", "teacher", "gfm"]  # compared on every task
    evaluate: Evaluate = Evaluate()
    promotion: Promotion = Promotion()
    tracking: Tracking = Tracking()
    carbon: Carbon = Carbon()

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        faults = [
            *self._names_differ(),
            *self._sources_differ(),
            *self._sources_have_the_bands(),
            *self._sources_left_out_are_known(),
            *self._teacher_sources_carry_labels(),
            *self._models_are_known(),
            *variant_faults(self.tasks),
            *self._remarks_fit_their_tasks(),
            *(fault for name, run in self.pretrain.items() for fault in self._pretraining_fits(name, run)),
            *self._normalisation_fits(),
        ]
        if faults:
            raise Contradictions(faults)
        return self

    def encoder_stage(self, name: str) -> str:
        """The DVC stage that makes models/encoders/NAME."""
        if name in self.encoders:
            return f"encoder@{name}"
        return {"random": "untrained", "teacher": "teacher"}.get(name, f"pretrain@{name}")

    def pretraining_seed(self, name: str) -> int:
        """The seed of `pretrain.NAME`: its own, or the file's."""
        own = self.pretrain[name].seed
        return self.seed if own is None else own

    def _names_differ(self) -> Iterator[str]:
        """Names become folders, and some file systems do not tell A from a."""
        for section, names in (
            ("geopile.sources", self.geopile.sources),
            ("pretrain", self.pretrain),
            ("encoders", self.encoders),
            ("tasks", self.tasks),
        ):
            seen: dict[str, str] = {}
            for name in names:
                other = seen.setdefault(name.lower(), name)
                if other != name:
                    yield f"{section}.{name} and {section}.{other} differ in case only; rename one"

    def _sources_differ(self) -> Iterator[str]:
        """The same files as two sources would all be dropped as duplicates of each other."""
        seen: dict[tuple[object, ...], str] = {}
        for name, source in self.geopile.sources.items():
            shown = source.stored_bands(self.geopile.bands)  # other bands are other pictures
            files = (source.store, PurePosixPath(source.root).as_posix(), *sorted(source.include))
            other = seen.setdefault((*files, *shown), name)
            if other != name:
                yield (
                    f"geopile.sources.{name}.root = {source.root} is the root of {other} too; leave one out, or tell "
                    "them apart by include or composite"
                )

    def _sources_have_the_bands(self) -> Iterator[str]:
        for name, source in self.geopile.sources.items():
            for band in source.composite:
                if band not in self.geopile.bands:
                    yield f"geopile.sources.{name}.composite.{band} is not one of geopile.bands"
            missing = [band for band in source.stored_bands(self.geopile.bands) if band not in source.imagery.bands]
            if missing:
                yield (
                    f"geopile.sources.{name}.imagery.bands lacks {', '.join(missing)}, which geopile.bands asks for; "
                    f"it has {', '.join(source.imagery.bands)}: add it, or say in geopile.sources.{name}.composite "
                    f"which stored band stands for it"
                )

    def _sources_left_out_are_known(self) -> Iterator[str]:
        left_out, sources = self.geopile.leave_out, self.geopile.sources
        for name in left_out:
            if name not in sources:
                yield f"geopile.leave_out names {name}, which is not in geopile.sources"
        if left_out and len(sources) == 1:
            yield f"geopile.leave_out names {left_out[0]}, the only source: nothing would be left"
        for name, run in self.pretrain.items():
            if run.without is not None and run.without not in left_out:
                yield (
                    f"pretrain.{name}.without = {run.without} is not in geopile.leave_out, which has "
                    f"{', '.join(left_out) or 'none'}: add it there"
                )

    def _teacher_sources_carry_labels(self) -> Iterator[str]:
        named = {f"pretrain.{name}.probe": run.probe.sources for name, run in self.pretrain.items() if run.probe}
        if isinstance(self.teacher, SupervisedTeacher):
            named["teacher"] = self.teacher.sources
        for key, sources in named.items():
            for name in sources:
                if name not in self.geopile.sources:
                    yield f"{key}.sources names {name}, which is not in geopile.sources"
                elif not self.geopile.sources[name].labelled:
                    yield (
                        f"{key}.sources names {name}, which carries no labels (declare class-folders, webdataset, or "
                        "archive with labels: folders)"
                    )

    def _models_are_known(self) -> Iterator[str]:
        known = {"random", "teacher", *self.pretrain, *self.encoders}
        for section, names in (("pretrain", self.pretrain), ("encoders", self.encoders)):
            for name in names:
                if name.lower() in RESERVED:
                    yield f"{section}.{name} is a reserved model name; choose another"
        both = {name.lower() for name in self.pretrain} & {name.lower() for name in self.encoders}
        for name in sorted(both):
            yield f"pretrain and encoders both name {name}; rename one"
        for name in self.models:
            if name not in known:
                yield f"models names {name}; known are {', '.join(sorted(known))}"
        if len(set(self.models)) != len(self.models):
            yield "models names a model twice"
        if self.evaluate.baseline not in self.models:
            yield f"evaluate.baseline = {self.evaluate.baseline} is not one of models"
        for name in self.embeddings:
            if name not in known:
                yield f"embeddings.{name} is no encoder; known are {', '.join(sorted(known))}"
        reference = self.evaluate.reference
        if reference is not None and (reference not in self.pretrain or reference not in self.models):
            yield f"evaluate.reference = {reference} is not one of pretrain that models names"
        for name in self.promotion.tasks or ():
            if name not in self.tasks:
                yield f"promotion.tasks names {name}, which is not in tasks; it has {', '.join(self.tasks)}"

    def _remarks_fit_their_tasks(self) -> Iterator[str]:
        for key, named in (("too_small", [*self.evaluate.too_small]), ("geobench2", [*self.evaluate.geobench2])):
            for name in named:
                if name not in self.tasks:
                    known = ", ".join(self.tasks)
                    yield f"evaluate.{key} names {name}, which is not in tasks; it has {known}"
        for name, dataset in self.evaluate.geobench2.items():
            task = self.tasks.get(name)
            misfit = task and dataset.misfit(task.kind, task.positive_class)
            if misfit:
                yield f"evaluate.geobench2.{name}.{misfit}"

    def _pretraining_fits(self, name: str, run: Pretraining) -> Iterator[str]:
        key = f"pretrain.{name}"
        if not isinstance(run, DistillPretraining):
            unit, px = run.masking.unit, self.student.architecture.image_px
            if unit % 32:
                near = max(32, unit // 32 * 32)
                yield (
                    f"{key}.masking.unit = {unit} is not a multiple of the backbone's stride 32; "
                    f"use {near} or {near + 32}"
                )
            elif px % unit:
                yield f"student.architecture.image_px = {px} is not a multiple of {key}.masking.unit = {unit}"
        if run.start == "teacher" and self.student.architecture.name != self.teacher.architecture.name:
            yield f"{key}.start = teacher needs the student to have the teacher's architecture"
        warmup = run.schedule.warmup_epochs
        if warmup > run.epochs:
            yield (
                f"{key}.schedule.warmup_epochs = {warmup:g} is more than {key}.epochs = {run.epochs}; warm up for fewer"
            )
        if run.decoded_px is not None and not run.decoded_cache:
            yield f"{key}.decoded_px = {run.decoded_px} needs {key}.decoded_cache: true"
        if run.reduced_decoding and run.decoded_cache:
            yield f"{key}.reduced_decoding has no JPEGs to decode with {key}.decoded_cache: true; use {key}.decoded_px"
        if run.resize_on == "device" and run.crop.interpolation != "antialiased":
            yield f"{key}.resize_on = device resizes as published; leave out {key}.crop.interpolation, the loader's"
        if run.batch_size % run.accumulate:
            yield f"{key}.accumulate = {run.accumulate} does not divide {key}.batch_size = {run.batch_size}"
        if run.sharding == "full":
            refused = [field for field in ("compile", "ema_decay", "probe") if getattr(run, field)]
            if run.precision == "16-mixed":
                refused.append("precision = 16-mixed")
            if refused:
                yield f"{key}.sharding = full does not work together with {key}.{refused[0]}; leave one of them out"
        if isinstance(run, GfmFastPretraining):
            if run.cached_crops == 0:
                yield f"{key}.cached_crops = 0: the recipe gfm-fast never runs its teacher while training"
            if run.decoder.width % run.decoder.heads or run.decoder.width % 4:
                yield (
                    f"{key}.decoder.width = {run.decoder.width} is not a multiple of 4 and of "
                    f"{key}.decoder.heads = {run.decoder.heads}"
                )

    def _normalisation_fits(self) -> Iterator[str]:
        bands = len(self.geopile.bands)
        declared = [("teacher", self.teacher.normalisation), ("student", self.student.normalisation)]
        declared += [
            (f"encoders.{name}", encoder.normalisation)
            for name, encoder in self.encoders.items()
            if isinstance(encoder, TimmEncoder)
        ]
        for where, norm in declared:
            if len(norm.mean) != bands or len(norm.std) != bands:
                yield f"{where}.normalisation has {len(norm.mean)} means and {len(norm.std)} stds for {bands} bands"
        for name, task in self.tasks.items():
            if len(task.data.imagery.bands) < bands:
                yield f"tasks.{name}.data.imagery has fewer bands than geopile.bands"
