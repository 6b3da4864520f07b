"""Adapt one model to one task with every seed and test it once: `gfm finetune TASK MODEL`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gfm.downstream.data import Chips
from gfm.downstream.job import Job, prepare
from gfm.downstream.requirements import check_requirements
from gfm.downstream.result import SeedResult, mean_and_spread, write_history, write_run, write_scores
from gfm.downstream.search import Found, Subject, search
from gfm.downstream.search_result import best as search_record
from gfm.downstream.search_result import in_words, write_search
from gfm.downstream.seeds import finished_before, learn, train_seeds
from gfm.downstream.split import PARTS, Part
from gfm.downstream.table import read_index
from gfm.downstream.training import Learned
from gfm.layout import encoder_folder, task_folder, task_index
from gfm.models.encoder_file import CONFIG
from gfm.output_folder import new_folder
from gfm.params import Finetune, ParameterError, Params, Task
from gfm.progress import say
from gfm.tracking.carbon import total
from gfm.tracking.provenance import content_hash, provenance, run_of
from gfm.tracking.runs import ENCODER_TAG, child_run


def finetune(params: Params, task_name: str, model_name: str) -> None:
    """Train, choose the epoch on validation and test once, for every seed; write `models/tasks/TASK/MODEL`.

    Where the task declares a search, learning rate and batch size are found first (`gfm.downstream.search`).

    The folder appears whole or not at all; after a kill the seeds that were finished are taken over. GfmError where
    the task or its index, the encoder or the device is missing.
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
            found = searched(params, job, folder / "search")
            say(f"{job.title}: {in_words(found)}")
            job = replace(job, task=task.model_copy(update={"finetune": found.settings}))
        finished = finished_before(params, job)
        name, begun = f"{task_name}/{model_name}", finished.run_id
        with child_run(params, name, "finetune", _described(job), resume_run_id=begun, data=job.data) as run:
            run.dataset(task_name, task_index(task_name), index.digest)
            done = train_seeds(params, job, finished, run)
            finished.give_to(folder, settings.seeds)
            results, energy = [result for result, _ in done], total([spent for _, spent in done])
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
                    **({"search": search_record(_subject(job), found)} if found else {}),
                    "provenance": origin,
                    "energy": energy.as_dict(),
                    "run_id": run.run_id,
                    "quarantined": index.quarantined,
                },
            )
            run.energy(energy)
            run.image(folder / "predictions.png", "predictions")
            run.artifact(folder / "scores.csv")
    finished.forget()
    beside = f" ({reference.name} {reference.test[primary]:.3f})" if reference else ""
    say(
        f"{job.title}: test {primary} {mean_and_spread(results, primary)}{beside} "
        f"over {len(results)} seeds, "
        f"{task.finetune.mode}: {share['trained_share']:.2%} of {share['parameters']:,} parameters trained, "
        f"{energy.seconds:.0f} s, written to {final}"
    )


def known_task(params: Params, name: str) -> Task:
    """A task by its name; ParameterError where there is none."""
    if name not in params.tasks:
        raise ParameterError(f"tasks has no {name}; it has {', '.join(params.tasks)}")
    return params.tasks[name]


def searched(params: Params, job: Job, folder: Path) -> Found:
    """Search for the job's learning rate and batch size as its task declares; write what was found to `folder`.

    The trials get no test part, so that nothing of it can enter the choice.
    """
    assert job.task.search is not None
    seed = job.task.search.seed
    parts: dict[Part, Chips] = {part: job.parts[part] for part in ("train", "val")}

    def tried(settings: Finetune, what: str) -> Learned:
        for part, chips in parts.items():
            chips.hold(f"{job.task_name}: reading {part}")
        task = job.task.model_copy(update={"finetune": settings})
        return learn(replace(job, task=task, parts=parts), seed, what).learned

    subject = _subject(job)
    origin = provenance(None) | {"data": job.data}
    found = search(params, subject, tried)
    write_search(folder, subject, found, origin)
    return found


def _subject(job: Job) -> Subject:
    return Subject(job.task_name, job.model_name, job.task, job.index.digest, job.data)


def _trained_share(result: SeedResult) -> dict[str, float]:
    """How many parameters there are, and how many of them learned."""
    whole, trained = result.parameters, result.trained
    return {"parameters": whole, "trained_parameters": trained, "trained_share": round(trained / whole, 6)}


def _described(job: Job) -> Mapping[str, Any]:
    weights = {} if job.class_weights is None else {"class_weights": job.class_weights.tolist()}
    return {"task": job.task_name, "model": job.model_name, **job.task.model_dump(mode="json"), **weights}
