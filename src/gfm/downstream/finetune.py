"""Adapt one model to one task with every seed and test it once: `gfm finetune TASK MODEL`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from gfm.compute import use_device
from gfm.downstream.adaptation import Adaptation, build_adaptation
from gfm.downstream.adapted import save_adapted
from gfm.downstream.bands import matching_bands
from gfm.downstream.classes import positive_id
from gfm.downstream.data import Chips, fits_memory, score_loader
from gfm.downstream.formats import open_format
from gfm.downstream.pictures import draw_predictions
from gfm.downstream.requirements import check_requirements
from gfm.downstream.result import Reference, SeedResult, mean_and_spread, write_history, write_run, write_scores
from gfm.downstream.search import Found, Subject, search
from gfm.downstream.search_result import best as search_record
from gfm.downstream.search_result import in_words, write_search
from gfm.downstream.split import PARTS, Part
from gfm.downstream.table import TaskIndex, read_index
from gfm.downstream.tasks import TaskModel, TaskSpec, build_model
from gfm.downstream.tasks.dense import IGNORED
from gfm.downstream.training import Learned, Training
from gfm.errors import DataError
from gfm.layout import encoder_folder, task_folder, task_index
from gfm.lightning_progress import quiet_lightning
from gfm.models.encoder import load_encoder
from gfm.models.encoder_file import CONFIG, EncoderCard, read_card
from gfm.output_folder import new_folder
from gfm.params import (
    CLASS_MAPS,
    DatedFolders,
    Finetune,
    Format,
    ImageTargets,
    LabelsTable,
    ParameterError,
    Params,
    SpaceNet2,
    Task,
)
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import content_hash, provenance, run_of
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
    card: EncoderCard

    @property
    def data(self) -> dict[str, Any]:
        """The version of the collection that the encoder saw; empty for one that never saw it."""
        return dict(self.card.provenance.get("data") or {})


def finetune(params: Params, task_name: str, model_name: str) -> None:
    """Train, choose the epoch on validation and test once, for every seed; write `models/tasks/TASK/MODEL`.

    Where the task declares a search, learning rate and batch size are found first (`gfm.downstream.search`).

    The folder appears whole or not at all. GfmError where the task or its index, the encoder or the device is missing.
    """
    task = known_task(params, task_name)
    check_requirements(params)
    settings = task.finetune
    origin = provenance(None) | {"seed": settings.seeds}  # of the code that runs now
    final = task_folder(task_name, model_name)
    with new_folder(final) as folder:
        index = read_index(task_name)
        job = prepare(params, task_name, model_name, index)
        origin["data"] = job.data
        found = None
        if task.search is not None:
            found = searched(params, job, index.digest, folder / "search")
            say(f"{task_name}, {model_name}: {in_words(found)}")
            job = replace(job, task=task.model_copy(update={"finetune": found.settings}))
        with child_run(params, f"{task_name}/{model_name}", "finetune", _described(job), data=job.data) as run:
            run.dataset(task_name, task_index(task_name), index.digest)
            with measure(params.carbon, f"{task_name}/{model_name}") as meter:
                for part, chips in job.parts.items():
                    chips.hold(f"{task_name}: reading {part}")
                results = [_train(job, seed, folder, run) for seed in settings.seeds]
            primary = next(iter(results[0].test))
            reference = results[0].reference
            share = _trained_share(results[0])
            chosen = {str(result.seed): result.chosen for result in results}
            run.tags({"mode": task.finetune.mode, ENCODER_TAG: run_of(encoder_folder(model_name))})
            run.metrics(share)
            if reference is not None:
                run.metrics({f"{reference.name}.test_{name}": score for name, score in reference.test.items()})
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
                    "index": index.digest,
                    "encoder": content_hash(encoder_folder(model_name) / CONFIG),
                    **share,
                    **({"chosen": chosen} if any(chosen.values()) else {}),
                    **({"reference": asdict(reference)} if reference else {}),
                    # As declared, which is what other models are compared by; `search` holds what was found.
                    "settings": task.model_dump(mode="json", exclude=None if found else {"search"}),
                    **({"search": search_record(_subject(job, index.digest), found)} if found else {}),
                    "provenance": origin,
                    "energy": energy.as_dict(),
                    "run_id": run.run_id,
                    "quarantined": index.quarantined,
                },
            )
            run.energy(energy)
            run.image(folder / "predictions.png", "predictions")
            run.artifact(folder / "scores.csv")
    beside = f" ({reference.name} {reference.test[primary]:.3f})" if reference else ""
    say(
        f"{task_name}, {model_name}: test {primary} {mean_and_spread(results, primary)}{beside} "
        f"over {len(results)} seeds, "
        f"{task.finetune.mode}: {share['trained_share']:.2%} of {share['parameters']:,} parameters trained, "
        f"{energy.seconds:.0f} s, written to {final}"
    )


def known_task(params: Params, name: str) -> Task:
    """A task by its name; ParameterError where there is none."""
    if name not in params.tasks:
        raise ParameterError(f"tasks has no {name}; it has {', '.join(params.tasks)}")
    return params.tasks[name]


def searched(params: Params, job: Job, index: str, folder: Path) -> Found:
    """Search for the job's learning rate and batch size as its task declares; write what was found to `folder`.

    The trials get no test part, so that nothing of it can enter the choice.
    """
    assert job.task.search is not None
    seed = job.task.search.seed
    parts: dict[Part, Chips] = {part: job.parts[part] for part in ("train", "val")}

    def learn(settings: Finetune, what: str) -> Learned:
        for part, chips in parts.items():
            chips.hold(f"{job.task_name}: reading {part}")
        task = job.task.model_copy(update={"finetune": settings})
        return _learn(replace(job, task=task, parts=parts), seed, what).learned

    subject = _subject(job, index)
    origin = provenance(None) | {"data": job.data}
    found = search(params, subject, learn)
    write_search(folder, subject, found, origin)
    return found


def _subject(job: Job, index: str) -> Subject:
    return Subject(job.task_name, job.model_name, job.task, index, job.card)


def prepare(params: Params, task_name: str, model_name: str, index: TaskIndex) -> Job:
    """One model's work on one task; GfmError where its index is another kind's, or a band or encoder is missing."""
    task = params.tasks[task_name]
    if index.kind != task.kind:
        raise DataError(
            f"{task_index(task_name)}: made for a {index.kind} task, now {task.kind}; run `gfm index` again"
        )
    most = max(len(row.sample.inputs) for row in index.rows)
    if task.dates is not None and most > task.dates.number:
        raise DataError(
            f"{task_index(task_name)}: made for {most} dates a sample, now {task.dates.number}; run `gfm index` again"
        )
    card = read_card(encoder_folder(model_name))
    spec = _spec(task_name, task, index, bands=len(card.bands))
    data = open_format(task_name, task, Path(params.paths.raw))
    bands = matching_bands(params, task_name, card.bands, index.collection_um, card.wavelengths_um)
    held = fits_memory(spec, len(index.rows))
    parts = {part: Chips(data, index.part(part), bands, spec, held) for part in PARTS}
    weighted = task.kind in CLASS_MAPS and task.finetune.class_weights == "root-inverse"
    weights = _class_weights(parts["train"], len(spec.classes)) if weighted else None
    return Job(task_name, model_name, task, spec, parts, weights, use_device(params.device), card)


def _spec(name: str, task: Task, index: TaskIndex, *, bands: int) -> TaskSpec:
    samples = [row.sample for row in index.rows]
    side = max(max(sample.window[2:]) for sample in samples)
    spec = TaskSpec(
        name=name,
        classes=tuple(index.classes),
        dates=len(samples[0].inputs) if task.dates is None else task.dates.number,
        bands=bands,
        image_px=task.image_px,
        mask_px=side if task.kind in CLASS_MAPS else None,
        positive=positive_id(name, task, index.classes),
        metric=task.metric,
        loss=task.loss,
        reduce="mean" if task.dates is None else task.dates.reduce,
    )
    if isinstance(task.data, SpaceNet2):
        target_side = max(max((sample.target_window or sample.window)[2:]) for sample in samples)
        return replace(spec, image_px=side, encoder_px=task.image_px, number_px=target_side, number_bands=bands)
    if task.kind == "regression":
        train = index.numbers["train"]
        number_px = None if task.numbers_images else side
        return replace(
            spec, number_px=number_px, number_mean=train["mean"], number_std=train["std"], unit=_unit(task.data)
        )
    return spec


def _unit(data: Format) -> str:
    if isinstance(data, ImageTargets):
        return data.target.unit
    if isinstance(data, LabelsTable | DatedFolders) and data.labels is not None:
        return data.labels.unit
    return data.target.unit if isinstance(data, DatedFolders) else ""


@dataclass(frozen=True, slots=True)
class _Trained:
    model: TaskModel
    adaptation: Adaptation
    learned: Learned
    trained: int  # parameters


def _learn(job: Job, seed: int, what: str) -> _Trained:
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
    learned = adaptation.learn(model, Training(settings, job.parts, seed, job.accelerator, what))
    return _Trained(model, adaptation, learned, trained)


def _train(job: Job, seed: int, folder: Path, run: Run) -> SeedResult:
    """One training of a seed, tested, saved and drawn."""
    done = _learn(job, seed, f"{job.task_name}, {job.model_name}, seed {seed}")
    model, adaptation, learned = done.model, done.adaptation, done.learned
    _record(learned, model.primary, seed, run)
    save_adapted(folder, model, adaptation, kind=job.task.kind, encoder=job.model_name, seed=seed)
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
