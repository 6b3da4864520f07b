"""`gfm submission`: our results as a folder that GEO-Bench-2's leaderboard takes.

Columns, their order and their types are those of the published submissions. What the board asks for and a run does
not know stands empty, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from gfm.errors import DataError
from gfm.evaluation.geobench2 import DATASET, GROUPS, METRIC, MODEL, SCORE
from gfm.evaluation.scores import TaskRun, read_runs
from gfm.output_folder import new_folder
from gfm.params import ParameterError, Params, Task
from gfm.progress import say

COLUMNS = (
    DATASET, METRIC, SCORE, "mlflow_run_name", "mlflow_run_id", "mlflow_run_status", "Seed", "experiment_id",
    "experiment_name", "index", "batch_size", "lr", "decoder", MODEL, "early_stop_patience", "n_trials",
    "partition_name", "data_percentages", "batch_size_selection", "weight_decay", "partition name",
    "frozen_or_full_ft",
)  # fmt: skip
RESULTS, INFO = "results_and_parameters.csv", "additional_info.json"
SEEDS = 5  # that the board's protocol asks for
METRICS = {  # of a kind: ours and the board's
    "classification": ("accuracy", "Overall_Accuracy"),
    "multilabel": ("macro_f1", "Multilabel_F1_Score"),
    "segmentation": ("miou", "Multiclass_Jaccard_Index"),
    "regression": ("rmse", "RMSE"),
}
BOARDS = {"full": "full_ft", "frozen": "frozen", "linear": "frozen"}  # of a mode; kNN and LoRA have none
Board = Literal["full", "frozen"]


def write_submission(params: Params, folder: Path, board: Board) -> None:
    """Write the results of the tasks that `evaluate.geobench2` maps and the board takes, of every model.

    ParameterError where no task is such a one, or two are of one data set; DataError where a run lacks the board's
    metric, or `folder` holds something else.
    """
    tasks = _mapped(params, board)
    if folder.exists() and not (folder / RESULTS).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: holds something else than a submission; give another folder")
    chosen = params.model_copy(update={"tasks": tasks})
    runs = read_runs(chosen)
    table = pd.concat([_rows(params, tasks[run.task], run) for run in runs], ignore_index=True)
    with new_folder(folder) as unfinished:
        table.to_csv(unfinished / RESULTS, index=False, lineterminator="\n")
        info = json.dumps(_info(runs), indent=1, ensure_ascii=False)
        (unfinished / INFO).write_text(info + "\n", encoding="utf-8")
    say(f"{folder / RESULTS}: {len(table)} results of {len(params.models)} models on {', '.join(sorted(tasks))}")
    _say_what_is_left(params, tasks, table)


def _mapped(params: Params, board: Board) -> dict[str, Task]:
    wanted = {"full": "full_ft", "frozen": "frozen"}[board]
    datasets = params.evaluate.geobench2
    mapped = {name: task for name, task in params.tasks.items() if name in datasets}
    if not mapped:
        raise ParameterError(
            f"no task is mapped to a data set of GEO-Bench-2 ({', '.join(params.tasks)}); name those that are one: "
            "evaluate.geobench2: {TASK: {dataset: …}}"
        )
    tasks = {name: task for name, task in mapped.items() if BOARDS.get(task.finetune.mode) == wanted}
    if not tasks:
        modes = ", ".join(f"{name} is {task.finetune.mode}" for name, task in mapped.items())
        fitting = " or ".join(mode for mode, own in BOARDS.items() if own == wanted)
        raise ParameterError(f"no mapped task is adapted for the board {board}, which takes {fitting}: {modes}")
    names: dict[str, str] = {}
    for name in tasks:
        other = names.setdefault(datasets[name].dataset, name)
        if other != name:
            raise ParameterError(
                f"tasks.{name} and tasks.{other} are both {datasets[name].dataset} on the board {board}; "
                "map one of them"
            )
    return tasks


def _rows(params: Params, task: Task, run: TaskRun) -> pd.DataFrame:
    """One row a seed."""
    mapped = params.evaluate.geobench2[run.task]
    own, theirs = METRICS[task.kind]
    scores = run.scores[(run.scores["split"] == "test") & (run.scores["metric"] == own)]
    if scores.empty or not np.isfinite(scores["score"].to_numpy()).all():
        raise DataError(
            f"tasks.{run.task}: {run.model} has no test score of {own}, which {mapped.dataset} is scored by; "
            f"run `gfm finetune {run.task} {run.model}` again"
        )
    dataset, settings = mapped.dataset, task.finetune
    schedule = settings.full.schedule
    search = run.record.get("search") or {}  # what it found takes the place of what was declared
    declared = settings.lr if schedule is None else schedule.base_lr
    columns: dict[str, Any] = {
        DATASET: dataset,
        METRIC: theirs,
        SCORE: scores["score"].to_numpy() * (mapped.rmse_scale or 1.0),
        "mlflow_run_name": [f"{dataset}_{seed}" for seed in scores["seed"]],
        "mlflow_run_id": run.record.get("run_id") or "",
        "mlflow_run_status": "FINISHED",
        "Seed": scores["seed"].to_numpy(),
        "experiment_id": 0,
        "experiment_name": params.tracking.experiment,
        "index": 0,
        "batch_size": search.get("batch_size", settings.batch_size),
        "lr": search.get("lr", declared),
        "decoder": "linear" if task.labels_images else "PyramidDecoder",
        MODEL: run.model,
        "early_stop_patience": np.nan,  # the best epoch of a fixed number is taken
        "n_trials": search.get("trials", 1),
        "partition_name": "default",
        "data_percentages": 100,
        "batch_size_selection": "HPO" if search else "Fixed",
        "weight_decay": settings.weight_decay,
        "partition name": "100%",
        "frozen_or_full_ft": BOARDS[settings.mode],
    }
    return pd.DataFrame(columns, columns=list(COLUMNS), index=scores.index)


def _info(runs: Sequence[TaskRun]) -> dict[str, Any]:
    """additional_info.json, with the keys of the published ones; what a person must say is empty."""
    sizes = {run.model: run.record.get("parameters") for run in runs}
    seeds = sorted({len(run.record.get("seeds", [])) for run in runs})
    return {
        "Paper Link": "",
        "Code Repository Link ": "",
        "License": "",
        "Number of HPO trials": "1",
        "Number of repeated seeds trials": " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
        "Additional information about submission": "",
        "Comments on new models in submission": "",
        "New model info": [
            {
                "model_display_name": model,
                "model_size": "" if size is None else f"{size / 1e6:.3g}M",
                "unique_backbone_key": model,
            }
            for model, size in sizes.items()
        ],
    }


def _say_what_is_left(params: Params, tasks: dict[str, Task], table: pd.DataFrame) -> None:
    left_out = [name for name in params.tasks if name not in tasks]
    if left_out:
        say(f"left out, not mapped or of another board: {', '.join(left_out)}")
    there = set(table[DATASET])
    complete = [group for group, members in GROUPS.items() if there.issuperset(members)]
    nearest = min(GROUPS, key=lambda group: len(set(GROUPS[group]) - there))
    if not complete:
        lacking = ", ".join(name for name in GROUPS[nearest] if name not in there)
        say(f"no group of the board is complete, so that it gives no score; nearest is {nearest}, without {lacking}")
    fewest = int(table.groupby([MODEL, DATASET]).size().min())
    if fewest < SEEDS:
        say(f"the board's protocol asks for {SEEDS} seeds a data set; there are as few as {fewest}")
    say(f"{INFO}: fill in paper, code, licence and remarks before sending it")
