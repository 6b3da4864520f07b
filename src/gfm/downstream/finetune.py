"""Adapt one model to one task with every seed and test it once: `gfm finetune TASK MODEL`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from gfm.compute import use_device
from gfm.downstream.adaptation import build_adaptation
from gfm.downstream.adapted import save_adapted
from gfm.downstream.bands import matching_bands
from gfm.downstream.classes import positive_id
from gfm.downstream.data import Chips, fits_memory
from gfm.downstream.formats import open_format
from gfm.downstream.pictures import draw_predictions
from gfm.downstream.requirements import check_requirements
from gfm.downstream.result import SeedResult, mean_and_spread, write_history, write_run, write_scores
from gfm.downstream.split import PARTS, Part
from gfm.downstream.table import TaskIndex, read_index
from gfm.downstream.tasks import TaskSpec, build_model
from gfm.downstream.tasks.dense import IGNORED
from gfm.downstream.training import Learned, Training
from gfm.errors import DataError
from gfm.layout import encoder_folder, task_folder, task_index
from gfm.lightning_progress import quiet_lightning
from gfm.models.encoder import load_encoder
from gfm.models.encoder_file import read_card
from gfm.output_folder import new_folder
from gfm.params import ParameterError, Params, Task
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import provenance, run_of
from gfm.tracking.runs import ENCODER_TAG, Run, child_run


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one task, with its data."""

    task_name: str
    model_name: str
    task: Task
    spec: TaskSpec
    parts: dict[Part, Chips]
    class_weights: Tensor | None
    accelerator: str


def finetune(params: Params, task_name: str, model_name: str) -> None:
    """Train, choose the epoch on validation and test once, for every seed; write `models/tasks/TASK/MODEL`.

    The folder appears whole or not at all. GfmError where the task or its index, the encoder or the device is missing.
    """
    if task_name not in params.tasks:
        raise ParameterError(f"tasks has no {task_name}; it has {', '.join(params.tasks)}")
    check_requirements(params)
    task = params.tasks[task_name]
    settings = task.finetune
    origin = provenance(None) | {"seed": settings.seeds}  # of the code and data that run now
    final = task_folder(task_name, model_name)
    with new_folder(final) as folder:
        index = read_index(task_name)
        job = _prepare(params, task_name, model_name, index)
        with child_run(params, f"{task_name}/{model_name}", "finetune", _described(job)) as run:
            run.dataset(task_name, task_index(task_name), index.digest)
            with measure(params.carbon, f"{task_name}/{model_name}") as meter:
                for part, chips in job.parts.items():
                    chips.hold(f"{task_name}: reading {part}")
                results = [_train(job, seed, folder, run) for seed in settings.seeds]
            primary = next(iter(results[0].test))
            share = _trained_share(results[0])
            chosen = {str(result.seed): result.chosen for result in results}
            run.tags({"mode": task.finetune.mode, ENCODER_TAG: run_of(encoder_folder(model_name))})
            run.metrics(share)
            write_scores(folder / "scores.csv", model_name, task_name, results)
            if any(result.history for result in results):
                write_history(folder / "history.csv", results)
            energy = meter.energy
            write_run(
                folder / "run.json",
                {
                    "task": task_name,
                    "kind": task.kind,
                    "model": model_name,
                    "mode": task.finetune.mode,
                    "seeds": settings.seeds,
                    "seconds": round(energy.seconds, 3),
                    "samples": sum(result.samples for result in results),
                    "primary_metric": primary,
                    "chosen_epochs": {str(result.seed): result.epoch for result in results},
                    "class_weights": None if job.class_weights is None else job.class_weights.tolist(),
                    "parts": {part: len(job.parts[part]) for part in PARTS},
                    "too_small": task.too_small,
                    "index": index.digest,
                    **share,
                    **({"chosen": chosen} if any(chosen.values()) else {}),
                    "settings": task.model_dump(mode="json"),
                    "provenance": origin,
                    "energy": energy.as_dict(),
                    "run_id": run.run_id,
                    "quarantined": index.quarantined,
                },
            )
            run.energy(energy)
            run.image(folder / "predictions.png", "predictions")
            run.artifact(folder / "scores.csv")
    say(
        f"{task_name}, {model_name}: test {primary} {mean_and_spread(results, primary)} over {len(results)} seeds, "
        f"{task.finetune.mode}: {share['trained_share']:.2%} of {share['parameters']:,} parameters trained, "
        f"{energy.seconds:.0f} s, written to {final}"
    )


def _prepare(params: Params, task_name: str, model_name: str, index: TaskIndex) -> Job:
    task = params.tasks[task_name]
    if index.kind != task.kind:
        raise DataError(
            f"{task_index(task_name)}: made for a {index.kind} task, now {task.kind}; run `gfm index` again"
        )
    card = read_card(encoder_folder(model_name))
    samples = [row.sample for row in index.rows]
    dense = task.kind in ("segmentation", "change")
    spec = TaskSpec(
        name=task_name,
        classes=tuple(index.classes),
        dates=len(samples[0].inputs),
        bands=len(card.bands),
        image_px=task.image_px,
        mask_px=max(max(sample.window[2:]) for sample in samples) if dense else None,
        positive=positive_id(task_name, task, index.classes),
        metric=task.metric,
    )
    data = open_format(task_name, task, Path(params.paths.raw))
    bands = matching_bands(params, task_name, card.bands)
    held = fits_memory(spec, len(samples))
    parts = {part: Chips(data, index.part(part), bands, spec, held) for part in PARTS}
    weighted = dense and task.finetune.class_weights == "root-inverse"
    weights = _class_weights(parts["train"], len(spec.classes)) if weighted else None
    return Job(task_name, model_name, task, spec, parts, weights, use_device(params.device))


def _train(job: Job, seed: int, folder: Path, run: Run) -> SeedResult:
    """One training; the test split is read after the epoch is chosen, once."""
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
    what = f"{job.task_name}, {job.model_name}, seed {seed}"
    learned = adaptation.learn(model, Training(settings, job.parts, seed, job.accelerator, what))
    _record(learned, model.primary, seed, run)
    save_adapted(folder, model, adaptation, kind=job.task.kind, encoder=job.model_name, seed=seed)
    if seed == settings.seeds[0]:
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
        trained=trained,
        chosen=learned.chosen,
    )


def _record(learned: Learned, primary: str, seed: int, run: Run) -> None:
    for entry in learned.history:
        values = {"train_loss": entry["train_loss"], f"val_{primary}": entry["val_score"]}
        run.metrics({f"seed{seed}.{name}": value for name, value in values.items()}, step=int(entry["step"]))
    run.metrics({f"seed{seed}.test_{name}": score for name, score in learned.test.items()})
    run.metrics({f"seed{seed}.{name}": value for name, value in learned.chosen.items()})


def _trained_share(result: SeedResult) -> dict[str, float]:
    """How many parameters there are, and how many of them learned."""
    whole, trained = result.parameters, result.trained
    return {"parameters": whole, "trained_parameters": trained, "trained_share": round(trained / whole, 6)}


def _described(job: Job) -> Mapping[str, Any]:
    weights = {} if job.class_weights is None else {"class_weights": job.class_weights.tolist()}
    return {"task": job.task_name, "model": job.model_name, **job.task.model_dump(mode="json"), **weights}


def _class_weights(train: Chips, classes: int) -> Tensor:
    """Root of the inverse share of each class among the training pixels: a rare class counts more, but not all."""
    counts = torch.zeros(classes)
    for number in range(len(train)):
        mask = train.target(number)
        counts += torch.bincount(mask[mask != IGNORED].long(), minlength=classes)
    return (counts.sum() / (classes * counts.clamp(min=1))).sqrt()
