"""A fine-tuning's trainings, seed by seed: each is tested once and kept, so that a kill costs the seed in hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from gfm.downstream.adaptation import Adaptation, build_adaptation
from gfm.downstream.adapted import save_adapted
from gfm.downstream.data import score_loader
from gfm.downstream.fingerprint import fingerprint
from gfm.downstream.finished_seeds import FinishedSeeds, write_result
from gfm.downstream.job import Job
from gfm.downstream.pictures import draw_predictions
from gfm.downstream.result import Reference, SeedResult
from gfm.downstream.tasks import TaskModel, build_model
from gfm.downstream.training import Learned, Training
from gfm.layout import encoder_folder
from gfm.lightning_progress import quiet_lightning
from gfm.models.encoder import load_encoder
from gfm.params import Params
from gfm.progress import say
from gfm.tracking.carbon import Energy, measure
from gfm.tracking.provenance import source_digest
from gfm.tracking.runs import Run


@dataclass(frozen=True, slots=True)
class Trained:
    """A model as it was tested, or left where there is no test part."""

    model: TaskModel
    adaptation: Adaptation
    learned: Learned
    trained: int  # parameters


def learn(job: Job, seed: int, what: str) -> Trained:
    """One training; a test split is read after the epoch is chosen, once."""
    settings = job.task.finetune
    quiet_lightning()
    seed_everything(seed, workers=True, verbose=False)
    adaptation = build_adaptation(settings)
    encoder = load_encoder(
        encoder_folder(job.model_name), image_px=job.task.image_px, seed=seed, drop_path=adaptation.drop_path
    )
    model = build_model(job.task.kind, encoder, job.spec, job.class_weights)
    adaptation.prepare(model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    training = Training(settings, job.parts, seed, job.accelerator, what, job.encoded_with(seed))
    learned = adaptation.learn(model, training)
    return Trained(model, adaptation, learned, trained)


def finished_before(params: Params, job: Job) -> FinishedSeeds:
    """The seeds that an interrupted fine-tuning of just this job has finished."""
    task = job.task.model_copy(update={"search": None})  # what it found is in the settings
    first = f"first {job.task.finetune.seeds[0]}"  # it alone is drawn
    learned_from = fingerprint(task, job.index.digest, job.model_name)
    where = (job.accelerator, params.tracking.experiment)  # a run goes on in its own experiment
    return FinishedSeeds(job.task_name, job.model_name, learned_from, source_digest(), first, *where)


def train_seeds(params: Params, job: Job, finished: FinishedSeeds, run: Run) -> list[tuple[SeedResult, Energy]]:
    """Every seed, those that were finished before a kill as they were."""
    seeds, before = job.task.finetune.seeds, finished.run_id
    finished.run_id = run.run_id
    kept = {seed: known for seed in seeds if (known := finished.read(seed)) is not None}
    if kept:
        say(f"{job.title}: {len(kept)} of {len(seeds)} seeds were finished before")
    if run.run_id != before:
        for result, _ in kept.values():
            _record(result, run)
    return [kept[seed] if seed in kept else _train(params, job, seed, finished, run) for seed in seeds]


def _train(params: Params, job: Job, seed: int, finished: FinishedSeeds, run: Run) -> tuple[SeedResult, Energy]:
    """One training of a seed, tested, saved and drawn, with what it took."""
    what = f"{job.title}, seed {seed}"
    with finished.place(seed) as folder:
        with measure(params.carbon, what) as meter:
            for part, chips in job.parts.items():
                chips.hold(f"{job.task_name}: reading {part}")
            result = _train_into(folder, job, seed, what)
        write_result(folder, result, meter.energy)
    _record(result, run)
    return result, meter.energy


def _train_into(folder: Path, job: Job, seed: int, what: str) -> SeedResult:
    done = learn(job, seed, what)
    model, adaptation, learned = done.model, done.adaptation, done.learned
    save_adapted(
        folder,
        model,
        adaptation,
        kind=job.task.kind,
        encoder=job.model_name,
        seed=seed,
        trained_on=job.trained_on,
    )
    first = seed == job.task.finetune.seeds[0]
    if first:
        title = f"{job.task_name} (test), {job.model_name}, seed {seed}"
        device = next(model.parameters()).device
        draw_predictions(folder / "predictions.png", model, job.parts["test"], device, title)
    return SeedResult(
        seed=seed,
        epoch=learned.epoch,
        val=learned.val,
        test=learned.test,
        history=learned.history,
        samples=learned.samples,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=done.trained,
        chosen=learned.chosen,
        reference=_refer(model, job) if first else None,
    )


def _refer(model: TaskModel, job: Job) -> Reference | None:
    """The scores of the kind's reference on the test split: no weight of the model takes part."""
    if model.reference is None:
        return None
    scores, device = model.scores(), next(model.parameters()).device
    settings = job.task.finetune
    with torch.no_grad():
        for batch in score_loader(job.parts["test"], batch_size=settings.batch_size, workers=settings.workers):
            there = batch.to(device)
            scores.update(model.refer(there), there.target)
    return Reference(model.reference, scores.compute())


def _record(result: SeedResult, run: Run) -> None:
    seed, primary = result.seed, next(iter(result.test))
    for entry in result.history:
        values = {"train_loss": entry["train_loss"], f"val_{primary}": entry["val_score"]}
        run.metrics({f"seed{seed}.{name}": value for name, value in values.items()}, step=int(entry["step"]))
    run.metrics({f"seed{seed}.test_{name}": score for name, score in result.test.items()})
    run.metrics({f"seed{seed}.{name}": value for name, value in result.chosen.items()})
