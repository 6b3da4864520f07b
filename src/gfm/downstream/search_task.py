"""`gfm search TASK MODEL`: the search by itself, which `gfm finetune` does first where a task declares it."""

from __future__ import annotations

from gfm.downstream.finetune import known_task, searched
from gfm.downstream.job import prepare
from gfm.downstream.requirements import check_requirements
from gfm.downstream.search_result import in_words
from gfm.downstream.table import read_index
from gfm.errors import GfmError
from gfm.layout import search_folder
from gfm.output_folder import new_folder
from gfm.params import Params, Search, Task
from gfm.progress import say


def search_task(params: Params, task_name: str, model_name: str, trials: int | None) -> None:
    """Search on validation and write `models/search/TASK/MODEL`; `trials` replaces the declared number.

    A task that declares no search is searched as the schema's defaults say. The finished trials are those that
    `gfm finetune` goes on from, too.
    """
    task = known_task(params, task_name)
    declared = task.search
    wanted = (declared or Search()).model_dump() | ({} if trials is None else {"trials": trials})
    if task.finetune.mode == "knn":
        raise GfmError(f"tasks.{task_name}.finetune.mode = knn: nothing learns, so there is nothing to search for")
    task = Task.model_validate(task.model_dump() | {"search": wanted})
    params = params.model_copy(update={"tasks": {**params.tasks, task_name: task}})
    check_requirements(params)
    final = search_folder(task_name, model_name)
    with new_folder(final) as folder:
        job = prepare(params, task_name, model_name, read_index(task_name))
        found = searched(params, job, folder)
    say(f"{job.title}: {in_words(found)}; written to {final}")
    if declared is None:
        say(f"to use a search for every model: tasks.{task_name}.search: {{trials: {len(found.trials)}}}")
        rates = "" if found.settings.full.schedule else f", encoder_lr: {found.settings.encoder_lr:g}"
        name = "full: {schedule: {base_lr" if found.settings.full.schedule else "lr"
        end = "}}" if found.settings.full.schedule else ""
        values = f"{name}: {found.best.lr:g}{end}{rates}, batch_size: {found.best.batch_size}"
        say(f"to use these values for all of them: tasks.{task_name}.finetune: {{{values}}}")
