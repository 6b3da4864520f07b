"""`gfm pretrain NAME`: continual pretraining of the student, from collection and teacher to a finished encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from gfm import layout
from gfm.errors import GfmError
from gfm.lightning_progress import LightningProgress
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder, check_keys, load_encoder, save_encoder
from gfm.models.encoder_file import WEIGHTS, EncoderCard, read_card
from gfm.models.gfm import StudentTeacher
from gfm.output_folder import new_folder
from gfm.params import Params, Pretraining
from gfm.pretraining.collection import Rows, read_rows
from gfm.pretraining.data import CropDataset, FixedBatches, StepBatches, make_loader
from gfm.pretraining.history import Row, numbers
from gfm.pretraining.model_card import write_model_card
from gfm.pretraining.pictures import draw_reconstructions
from gfm.pretraining.record import RunRecord
from gfm.pretraining.student_module import StudentModule
from gfm.pretraining.trainer import Processes, TimedCheckpoint, check_batch, make_trainer
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import data_version, provenance
from gfm.tracking.registry import register_encoder
from gfm.tracking.runs import child_run

METHOD = (
    "Continual pretraining as in GFM (Towards Geospatial Foundation Models via Continual Pretraining, ICCV 2023): "
    "the student fills in masked blocks of the image, and its pooled features follow those of a frozen teacher that "
    "sees the whole image."
)


def pretrain(params: Params, name: str) -> None:
    """Pretrain the student as `pretrain.NAME` says and write models/encoders/NAME.

    A killed run resumes from checkpoints/NAME when parameters, data and teacher are still the same.
    """
    if name not in params.pretrain:
        raise GfmError(f"pretrain.{name}: no such pretraining; there are {', '.join(params.pretrain)}")
    run, px = params.pretrain[name], params.student.architecture.image_px
    origin = provenance(params.seed)  # of the code and data that run now, not of a commit made meanwhile
    processes = Processes.from_environment()
    train, val = read_rows("train"), read_rows("val")
    check_batch(len(train), run.batch_size, processes, key=f"pretrain.{name}.batch_size")
    batches = StepBatches(
        len(train),
        batch_size=run.batch_size,
        epochs=run.epochs,
        seed=params.seed,
        rank=processes.rank,
        processes=processes.count,
    )
    final = layout.encoder_folder(name)
    with _output(final, processes) as folder, _child_run(params, name, run) as tracked:
        version = data_version()
        for path, digest in ((layout.COLLECTION, version["dvc"]), (layout.SPLITS, version["splits"])):
            tracked.dataset(path.name, path, digest)
        model = _student_and_teacher(params, name)

        def report(row: Row) -> None:
            tracked.metrics(numbers(row), step=int(row["step"] or 0))

        module = StudentModule(
            model,
            masking=run.masking,
            px=px,
            schedule=run.schedule,
            batch_size=run.batch_size,
            epochs=run.epochs,
            steps_per_epoch=batches.steps_per_epoch,
            weight_decay=run.weight_decay,
            train_rows=train,
            seed=params.seed,
            key=f"pretrain.{name}",
            lr_key=f"pretrain.{name}.schedule.base_lr",
            validates=len(val) > 0,
            report=report,
        )
        checkpoint = TimedCheckpoint(name, _key(params, name), batches, minutes=run.checkpoint_minutes)
        progress = LightningProgress(f"pretrain {name}", batch_size=run.batch_size, total_steps=len(batches))
        trainer = make_trainer(
            params.device,
            steps=len(batches),
            steps_per_epoch=batches.steps_per_epoch,
            progress=progress,
            validates=len(val) > 0,
            precision=run.precision,
            gradient_clip_val=run.clip_grad,
            callbacks=[checkpoint],
        )
        with measure(params.carbon, f"pretrain {name}") as meter:
            resumed = _fit(trainer, module, params, run, (train, val), batches, checkpoint)
        if not trainer.is_global_zero:
            return
        metrics = numbers(module.history.rows[-1])
        metrics["samples_per_s"] = round(progress.rate, 2)
        tracked.metrics({"samples_per_s": metrics["samples_per_s"]}, step=len(batches))
        tracked.energy(meter.energy)
        record = RunRecord(
            name=name,
            kind="pretraining",
            seed=params.seed,
            seconds=meter.energy.seconds,
            samples=(len(batches) - (resumed or 0)) * run.batch_size,
            provenance=origin,
            energy=meter.energy.as_dict(),
            run_id=tracked.run_id,
            metrics=metrics,
            resumed_at_step=resumed,
        )
        encoder = model.student.encoder
        card = replace(encoder.card, provenance=origin, energy=meter.energy.as_dict())
        save_encoder(folder, encoder.backbone, card)
        module.history.write(folder / "history.csv")
        seen = val if len(val) else train
        draw_reconstructions(module, _crops(params, run, seen), folder / "reconstructions.png")
        tracked.image(folder / "reconstructions.png", "reconstructions")
        record.write(folder)
        write_model_card(
            folder,
            card,
            record,
            method=METHOD,
            parameters=sum(p.numel() for p in encoder.backbone.parameters()),
            sources=train.licences(),
            limits=_limits(params, train),
            pictures=True,
        )
    checkpoint.remove()
    register_encoder(params, tracked, final)
    say(
        f"{final}: {run.epochs} epochs of {len(train)} images in {meter.energy.seconds:.0f} s, "
        f"{progress.rate:.0f} images/s; loss {module.history.rows[0]['train_loss']} -> {metrics['train_loss']}"
    )


@contextmanager
def _output(final: Path, processes: Processes) -> Iterator[Path]:
    """The folder to write; only the first process writes, and holds the lock."""
    if processes.rank:
        yield final
        return
    with new_folder(final) as folder:
        yield folder


def _child_run(params: Params, name: str, run: Pretraining) -> Any:
    settings = run.model_dump(mode="json") | {"student": params.student.model_dump(mode="json")}
    return child_run(params, name=f"pretrain {name}", kind="pretrain", settings=settings, seed=params.seed)


def _student_and_teacher(params: Params, name: str) -> StudentTeacher:
    run = params.pretrain[name]
    bands = params.geopile.bands
    teacher = load_encoder(layout.encoder_folder("teacher"), image_px=run.teacher_px, seed=params.seed)
    if teacher.bands != bands:
        raise GfmError(
            f"geopile.bands is {', '.join(bands)}, but the teacher takes {', '.join(teacher.bands)}; "
            "run `gfm teacher` again"
        )
    return StudentTeacher(
        _student(params, run, teacher.card),
        teacher,
        student_tap=(run.student_tap.stage, run.student_tap.merged),
        teacher_tap=(run.teacher_tap.stage, run.teacher_tap.merged),
        teacher_px=run.teacher_px,
        alpha=run.alpha,
        seed=params.seed,
        name=name,
    )


def _student(params: Params, run: Pretraining, teacher: EncoderCard) -> Encoder:
    wanted, norm = params.student.architecture, params.student.normalisation
    licences = [source.licence for source in params.geopile.sources.values()]
    card = EncoderCard(
        architecture=wanted.name,
        model_args=dict(wanted.args),
        image_px=wanted.image_px,
        bands=list(params.geopile.bands),
        mean=list(norm.mean),
        std=list(norm.std),
        batch_norm=teacher.batch_norm if run.start == "teacher" else "live",
        origin="pretrained",
        licence="; ".join(dict.fromkeys([*licences, teacher.licence])),
        parents=["teacher"],
    )
    backbone = build_backbone(
        wanted.name, wanted.args, image_px=wanted.image_px, bands=len(card.bands), seed=params.seed
    )
    if run.start == "teacher":
        if (teacher.mean, teacher.std) != (card.mean, card.std):
            raise GfmError(
                f"student.normalisation differs from the teacher's (mean {teacher.mean}, std {teacher.std}), "
                "whose weights the student starts from; set it to the teacher's"
            )
        folder = layout.encoder_folder("teacher")
        state = load_encoder(folder, image_px=wanted.image_px, seed=params.seed).backbone.state_dict()
        check_keys(backbone, state, f"{folder} for student.architecture")
        backbone.load_state_dict(state, strict=True)
    return Encoder(backbone, card, "student")


def _crops(params: Params, run: Pretraining, rows: Rows) -> CropDataset:
    px = params.student.architecture.image_px
    return CropDataset(rows, bands=len(params.geopile.bands), px=px, crop=run.crop, seed=params.seed)


def _fit(
    trainer: Trainer,
    module: StudentModule,
    params: Params,
    run: Pretraining,
    rows: tuple[Rows, Rows],
    batches: StepBatches,
    checkpoint: TimedCheckpoint,
) -> int | None:
    """Train to the end; returns the step that a checkpoint let it begin at, if one did."""
    train, val = rows
    fixed = FixedBatches(
        len(val),
        batch_size=run.batch_size // batches.processes,
        rank=batches.rank,
        processes=batches.processes,
    )
    trainer.fit(
        module,
        make_loader(_crops(params, run, train), batches, workers=run.workers),
        make_loader(_crops(params, run, val), fixed, workers=0) if len(val) else None,
        ckpt_path=checkpoint.find(),
        weights_only=True,
    )
    return batches.first_step or None


def _key(params: Params, name: str) -> dict[str, Any]:
    """What the training depends on; a checkpoint of anything else is not resumed."""
    import xxhash

    run = params.pretrain[name].model_dump(mode="json")
    for indifferent in ("workers", "checkpoint_minutes"):
        run.pop(indifferent)
    folder = layout.encoder_folder("teacher")
    card = read_card(folder)
    weights = folder / WEIGHTS
    data = data_version()
    return {
        "pretrain": run,
        "student": params.student.model_dump(mode="json"),
        "seed": params.seed,
        "data": {"manifest": data["manifest"], "splits": data["splits"]},
        "teacher": {
            "architecture": card.architecture,
            "mean": card.mean,
            "std": card.std,
            "weights": xxhash.xxh3_128_hexdigest(weights.read_bytes()) if weights.exists() else None,
        },
    }


def _limits(params: Params, train: Rows) -> list[str]:
    """What a user of the encoder must know about its data."""
    gsd = [f"{name} {source.gsd_m} m" for name, source in params.geopile.sources.items() if source.gsd_m]
    return [
        f"It has seen {len(train)} images only: {', '.join(gsd) or 'ground sampling distances not stated'}.",
        f"It takes the bands {', '.join(params.geopile.bands)} as described above and knows no others.",
        "Images of the tasks' validation and test places were kept out of its training data as far as pixels, "
        "looks and footprints show.",
        "What it is worth on a task is in the report, not here: a lower pretraining loss need not be a better encoder.",
    ]
