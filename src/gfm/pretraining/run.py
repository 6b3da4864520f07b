"""`gfm pretrain NAME`: continual pretraining of the student, from collection and teacher to a finished encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from gfm import layout
from gfm.lightning_progress import LightningProgress
from gfm.models.encoder import Encoder, EncoderCard
from gfm.output_folder import new_folder
from gfm.params import FollowsTeacher, Params
from gfm.pretraining.collection import Rows
from gfm.pretraining.data import VALIDATION_EPOCH, FixedBatches, make_loader
from gfm.pretraining.ema import WeightAverage
from gfm.pretraining.finished import write_finished
from gfm.pretraining.history import Row, numbers
from gfm.pretraining.job import Job, data_hashes, source_weights, teacher_version
from gfm.pretraining.neighbours import GALLERY, QUERIES, draw_neighbours, spaced
from gfm.pretraining.networks import load_networks
from gfm.pretraining.pictures import draw_reconstructions
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.recipes import Networks, Recipe, build_recipe
from gfm.pretraining.record import RunRecord
from gfm.pretraining.repeats import write_repeats
from gfm.pretraining.sharding import ShardedStrategy, whole
from gfm.pretraining.spending import over_nodes
from gfm.pretraining.teacher_cache import TeacherCache, TeacherPass, fill_cache
from gfm.pretraining.trainer import Processes, make_trainer
from gfm.pretraining.watch import Watch
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import provenance
from gfm.tracking.registry import register_encoder
from gfm.tracking.runs import Run

CAPTIONS = {
    "reconstructions.png": "Rows: the input, the masked input, and the masked parts filled in.",
    "neighbours.png": "Rows: a held-out image, then the training images that the encoder holds to be most like it.",
}


def pretrain(params: Params, name: str) -> None:
    """Pretrain the student as `pretrain.NAME` says and write models/encoders/NAME.

    A killed run resumes from checkpoints/NAME when parameters, data and teacher are still the same. BudgetUsed, a
    GfmError, where the training stops at its budget.
    """
    job = Job.prepare(params, name)
    # Of the code and data that run now, not of a commit made meanwhile.
    origin = provenance(job.seed) | {"data": dict(job.data)}
    run, batches = job.run, job.batches
    final = layout.encoder_folder(name)
    checkpoint = job.checkpoint()
    with ExitStack() as stack:
        folder = stack.enter_context(_output(final, job.processes))
        saved = checkpoint.find(job.processes)  # under the output's lock: no other training is writing it
        tracked = stack.enter_context(job.tracked(resume_run_id=checkpoint.tracked_run() if saved else None))
        checkpoint.belongs_to(tracked.run_id)
        for path, digest in ((layout.COLLECTION, job.data["dvc"]), (layout.SPLITS, job.data["splits"])):
            tracked.dataset(path.name, path, digest)
        networks = load_networks(params, name)
        average = WeightAverage(networks.student, run.ema_decay) if run.ema_decay else None
        recipe = build_recipe(run, networks)
        module = build_module(job, recipe, tracked)
        progress = LightningProgress(f"pretrain {name}", batch_size=run.batch_size, total_steps=batches.steps)
        with measure(params.carbon, f"pretrain {name}") as meter:
            if job.decoded is not None:
                job.decoded.fill(job.processes, threads=run.workers)
            watch = Watch.over(job, recipe, average, checkpoint, meter, tracked)
            trainer = make_trainer(
                params.device,
                steps=batches.steps,
                steps_per_epoch=batches.steps_per_epoch,
                progress=progress,
                validates=len(job.val) > 0,
                parts=run.accumulate,
                precision=run.precision,
                gradient_clip_val=run.clip_grad,
                callbacks=watch.callbacks,
                strategy=ShardedStrategy(job.processes.count) if job.sharded else "auto",
            )
            resumed = _fit(trainer, module, job, recipe, networks, saved)
        energy = watch.spending.whole(over_nodes(meter.energy, trainer), resumed)
        state = whole(recipe.model.state_dict(), keep=trainer.is_global_zero) if job.sharded else None
        if not trainer.is_global_zero:
            return
        if state is not None:
            recipe = build_recipe(run, load_networks(params, name))  # plain, where one process alone can run it
            recipe.model.load_state_dict(state)
        tracked.energy(energy)
        encoder = average.encoder if average else recipe.student
        metrics = numbers(module.history.rows[-1]) | watch.results()
        record = RunRecord(
            name=name,
            kind="pretraining",
            seed=job.seed,
            seconds=energy.seconds,
            samples=batches.steps * run.batch_size,
            provenance=origin,
            energy=energy.as_dict(),
            run_id=tracked.run_id,
            metrics=metrics,
            settings=_settings(params, job),
            resumed_at_step=resumed,
        )
        pictures = _draw(job, recipe, encoder, trainer, folder)
        for picture in pictures:
            tracked.image(folder / picture, picture)
        if run.duplicate_cosine is not None:
            write_repeats(folder / "duplicates.csv", job.repeats)
        if watch.probe is not None:
            watch.probe.write(folder / "probes.csv")
        write_finished(
            folder,
            encoder.backbone,
            replace(encoder.card, provenance=origin, energy=energy.as_dict()),
            record,
            method=_method(job, recipe),
            sources=job.train.licences(),
            limits=_limits(params, job.train, encoder.card),
            history=module.history,
            pictures={picture: CAPTIONS[picture] for picture in pictures},
        )
    register_encoder(params, tracked, final)
    checkpoint.remove()  # last: a kill before it costs the steps since the checkpoint, not the training
    say(
        f"{final}: {run.epochs} epochs of {len(job.train)} images in {energy.seconds:.0f} s, "
        f"{progress.rate:.0f} images/s; loss {module.history.rows[0]['train_loss']} -> {metrics['train_loss']}"
    )


def build_module(job: Job, recipe: Recipe, tracked: Run) -> RecipeModule:
    """What Lightning trains: the recipe with the job's schedule, reporting each epoch to `tracked`."""

    def report(row: Row) -> None:
        tracked.metrics(numbers(row), step=int(row["step"] or 0))

    run = job.run
    if run.checkpoint_activations:
        recipe.student.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    if run.compile:
        recipe.model.compile()
    return RecipeModule(
        recipe,
        schedule=run.schedule,
        batch_size=run.batch_size,
        epochs=run.epochs,
        steps_per_epoch=job.batches.steps_per_epoch,
        weight_decay=run.weight_decay,
        train_rows=job.train,
        seed=job.seed,
        key=job.key,
        lr_key=f"{job.key}.schedule.base_lr",
        validates=len(job.val) > 0,
        report=report,
        parts=run.accumulate,
    )


@contextmanager
def _output(final: Path, processes: Processes) -> Iterator[Path]:
    """The folder to write; only the first process writes, and holds the lock."""
    if processes.rank:
        yield final
        return
    with new_folder(final) as folder:
        yield folder


def _fit(
    trainer: Trainer,
    module: RecipeModule,
    job: Job,
    recipe: Recipe,
    networks: Networks,
    saved: Path | None,
) -> int | None:
    """Train to the end; returns the step that a checkpoint let it begin at, if one did."""
    crops, features, val_features = 0, None, None
    if isinstance(job.run, FollowsTeacher) and job.run.cached_crops:
        crops = min(job.run.cached_crops, job.run.epochs)
        features = teacher_features(job, networks, job.run, "train", job.train, list(range(crops)), trainer)
        if len(job.val):
            val_features = teacher_features(job, networks, job.run, "val", job.val, [VALIDATION_EPOCH], trainer)
    fixed = FixedBatches(
        len(job.val),
        batch_size=job.part_size,
        rank=job.processes.rank,
        processes=job.processes.count,
        even=job.sharded,
    )
    trainer.fit(
        module,
        make_loader(job.crops(job.train, recipe, crops=crops, features=features), job.batches, workers=job.run.workers),
        make_loader(job.crops(job.val, recipe, features=val_features), fixed, workers=0) if len(job.val) else None,
        ckpt_path=saved,
        weights_only=True,
    )
    return job.batches.first_step or None


def teacher_features(
    job: Job, networks: Networks, run: FollowsTeacher, split: str, rows: Rows, crops: list[int], trainer: Trainer
) -> TeacherCache:
    """The teacher's features of so many crops of a split's rows; computed where they are missing."""
    how = TeacherPass(
        networks.the_teacher(),
        run,
        precision=job.run.precision,
        device=trainer.strategy.root_device,
        batch_size=job.run.batch_size,
        workers=job.run.workers,
        key=job.key,
    )
    belongs = {"teacher": teacher_version(), "data": data_hashes(job.run)}
    return fill_cache(job.crops(rows), split, crops, how, belongs, job.processes)


def _draw(job: Job, recipe: Recipe, encoder: Encoder, trainer: Trainer, folder: Path) -> list[str]:
    """Write the pictures that show what was learned; returns their file names."""
    device = trainer.strategy.root_device  # Lightning has moved the module off it
    recipe.model.to(device)
    encoder.to(device)
    seen = job.val if len(job.val) else job.train
    reconstructions, neighbours = CAPTIONS
    drawn = [reconstructions] if draw_reconstructions(recipe, job.crops(seen, recipe), folder / reconstructions) else []
    draw_neighbours(
        encoder,
        job.whole(spaced(seen, QUERIES)),
        job.whole(spaced(job.train, GALLERY)),
        folder / neighbours,
        batch_size=job.part_size,
    )
    return [*drawn, neighbours]


def _settings(params: Params, job: Job) -> dict[str, Any]:
    """What tells this pretraining from others: its section, the student, and the sources of its images."""
    student = params.student.model_dump(mode="json")
    run = job.run.model_dump(mode="json", exclude={"without"})  # `sources` says it, whichever way they came to be
    weights = source_weights(params)
    uneven = {"weights": weights} if len(set(weights.values())) > 1 else {}
    return {**run, **uneven, "student": student, "sources": list(job.train.licences())}


def _method(job: Job, recipe: Recipe) -> str:
    """What was done, for the model card."""
    if job.run.ema_decay is None:
        return recipe.method
    return f"{recipe.method} The weights are the exponential moving average over the steps, decay {job.run.ema_decay}."


def _limits(params: Params, train: Rows, card: EncoderCard) -> list[str]:
    """What a user of the encoder must know about its data and its form."""
    unshifted = ", ".join(map(str, card.unshifted_stages))
    form = [
        f"It was trained without shifting the windows of stages {unshifted}. Here and as a registered model it is "
        f"built so; timm shifts them, unless `gfm.models.sparse_swin.drop_shift(model, [{unshifted}])` is called."
    ]
    gsd = [f"{name} {source.gsd_m} m" for name, source in params.geopile.sources.items() if source.gsd_m]
    return [
        f"It has seen {len(train)} images only: {', '.join(gsd) or 'ground sampling distances not stated'}.",
        f"It takes the bands {', '.join(params.geopile.bands)} as described above and knows no others.",
        "Images of the tasks' validation and test places were kept out of its training data as far as pixels, "
        "looks and footprints show.",
        "What it is worth on a task is in the report, not here: a lower pretraining loss need not be a better encoder.",
        *(form if unshifted else []),
    ]
