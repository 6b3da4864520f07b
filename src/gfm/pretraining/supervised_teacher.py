"""A small teacher trained here, from the labels that class-folder sources of the collection carry."""

from __future__ import annotations

from dataclasses import replace

from gfm import layout
from gfm.errors import DataError
from gfm.lightning_progress import LightningProgress
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.output_folder import new_folder
from gfm.params import Crop, Params, Schedule, SupervisedTeacher
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.data import CropDataset, FixedBatches, StepBatches, make_loader
from gfm.pretraining.finished import write_finished
from gfm.pretraining.history import Row, numbers
from gfm.pretraining.record import RunRecord
from gfm.pretraining.supervised_module import Classifier, SupervisedModule
from gfm.pretraining.trainer import Processes, check_batch, make_trainer
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import data_version, provenance
from gfm.tracking.runs import child_run

METHOD = (
    "A teacher trained with supervision on the labelled training images of the pretraining collection "
    "(cross entropy; a class counts within its source). Its classifier is not kept."
)
WARMUP_SHARE = 0.1  # of the epochs
CLIP_GRAD = 5.0


def train_teacher(params: Params, teacher: SupervisedTeacher) -> None:
    """Train `teacher.architecture` on the labelled training rows and write models/encoders/teacher.

    Accuracy is reported on the rows that the split holds out for validation. DataError where there is nothing to
    tell apart.
    """
    train = read_rows("train", labelled_sources=teacher.sources)
    val = read_rows("val", labelled_sources=teacher.sources)
    check_batch(len(train), teacher.batch_size, Processes(0, 1, 1), key="teacher.batch_size")
    names = sorted(set(train.labels()))
    if len(names) < 2:
        raise DataError(
            f"teacher.sources {', '.join(teacher.sources)}: {len(names)} class in the training split, nothing to tell "
            "apart; name more labelled sources"
        )
    val = val.where([label in names for label in val.labels()])  # a class that training never saw cannot be known
    classes = {name: index for index, name in enumerate(names)}
    batches = StepBatches(len(train), batch_size=teacher.batch_size, epochs=teacher.epochs, seed=params.seed)
    architecture, bands = teacher.architecture, params.geopile.bands
    licences = [params.geopile.sources[name].licence for name in teacher.sources]
    card = EncoderCard(
        architecture=architecture.name,
        model_args=dict(architecture.args),
        image_px=architecture.image_px,
        bands=list(bands),
        mean=list(teacher.normalisation.mean),
        std=list(teacher.normalisation.std),
        batch_norm="live",
        origin="supervised",
        licence="; ".join(dict.fromkeys(licences)),
    )
    final = layout.encoder_folder("teacher")
    settings = teacher.model_dump(mode="json")
    with (
        new_folder(final) as folder,
        child_run(params, name="teacher", kind="teacher", settings=settings, seed=params.seed) as tracked,
    ):
        origin = provenance(params.seed)  # of the code and data that run now
        tracked.dataset(layout.COLLECTION.name, layout.COLLECTION, data_version()["dvc"])
        backbone = build_backbone(
            architecture.name, architecture.args, image_px=card.image_px, bands=len(bands), seed=params.seed
        )

        def report(row: Row) -> None:
            tracked.metrics(numbers(row), step=int(row["step"] or 0))

        module = SupervisedModule(
            Classifier(Encoder(backbone, card, "teacher"), len(classes), params.seed),
            train_labels=[classes[label] for label in train.labels()],
            val_labels=[classes[label] for label in val.labels()],
            schedule=Schedule(
                base_lr=teacher.lr,
                warmup_lr=0.0,
                min_lr=0.0,
                warmup_epochs=WARMUP_SHARE * teacher.epochs,
                reference_batch=teacher.batch_size,
            ),
            batch_size=teacher.batch_size,
            epochs=teacher.epochs,
            steps_per_epoch=batches.steps_per_epoch,
            weight_decay=teacher.weight_decay,
            train_rows=train,
            seed=params.seed,
            key="teacher",
            lr_key="teacher.lr",
            validates=len(val) > 0,
            report=report,
        )
        progress = LightningProgress("teacher", batch_size=teacher.batch_size, total_steps=len(batches))
        trainer = make_trainer(
            params.device,
            steps=len(batches),
            steps_per_epoch=batches.steps_per_epoch,
            progress=progress,
            validates=len(val) > 0,
            gradient_clip_val=CLIP_GRAD,
        )

        def crops(rows: Rows) -> CropDataset:
            return CropDataset(rows, bands=len(bands), px=card.image_px, crop=Crop(), seed=params.seed)

        with measure(params.carbon, "teacher") as meter:
            trainer.fit(
                module,
                make_loader(crops(train), batches, workers=0),
                make_loader(crops(val), FixedBatches(len(val), batch_size=teacher.batch_size), workers=0)
                if len(val)
                else None,
            )
        metrics = numbers(module.history.rows[-1])
        metrics |= {"classes": len(classes), "samples_per_s": round(progress.rate, 2)}
        tracked.metrics({"classes": metrics["classes"], "samples_per_s": metrics["samples_per_s"]}, step=len(batches))
        tracked.energy(meter.energy)
        card = replace(card, provenance=origin, energy=meter.energy.as_dict())
        record = RunRecord(
            name="teacher",
            kind="supervised teacher",
            seed=params.seed,
            seconds=meter.energy.seconds,
            samples=len(batches) * teacher.batch_size,
            provenance=card.provenance,
            energy=card.energy,
            run_id=tracked.run_id,
            metrics=metrics,
        )
        write_finished(
            folder,
            backbone,
            card,
            record,
            method=METHOD,
            sources=train.licences(),
            history=module.history,
            limits=[
                f"It has learned {len(classes)} classes from {len(train)} images: a small teacher, for small students.",
                f"It takes the bands {', '.join(bands)} as described above and knows no others.",
            ],
        )
    accuracy = metrics.get("val_accuracy")
    held_out = f"{accuracy:.0%} of {len(val)} held-out images right" if accuracy is not None else "no held-out images"
    say(f"{final}: {len(classes)} classes, {teacher.epochs} epochs in {meter.energy.seconds:.0f} s; {held_out}")
