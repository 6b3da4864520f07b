"""`gfm predict TASK MODEL INPUT…`: a fine-tuned model on new scenes and images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gfm.downstream.finetune import known_task
from gfm.downstream.prediction.dense import SUFFIXES, Mapper, is_dense
from gfm.downstream.prediction.finished import record_name
from gfm.downstream.prediction.inputs import Item, check_names, find_items
from gfm.downstream.prediction.model import Predictor, best_seed
from gfm.downstream.prediction.whole_images import TABLE, predict_images
from gfm.downstream.requirements import check_requirements
from gfm.downstream.result import write_run
from gfm.errors import DataError, GfmError
from gfm.imagery.raster import ImageError
from gfm.layout import task_folder
from gfm.output_folder import growing_folder, keep_only
from gfm.params import CLASS_MAPS, Params
from gfm.progress import counted, say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import provenance, source_digest

RUN = "run.json"
FAILED = "quarantine.csv"
SHOWN_FAILURES = 3


def predict(
    params: Params,
    task_name: str,
    model_name: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    seed: int | None = None,
    overlap: float = 0.25,
    probabilities: bool = False,
) -> None:
    """Run a fine-tuned model over images; write the new folder `out`, whole or not at all.

    A model of maps gives a GeoTIFF a scene, on the scene's own grid; one that labels images as a whole gives
    `predictions.csv`. `run.json` says what they were made from. `seed` None is the one that was best on validation. A
    file that cannot be used is listed in `quarantine.csv`; it stops no other, but at the end there is a GfmError.
    Scenes that a killed call has finished are taken over where neither they nor what they depend on has changed.
    """
    task = known_task(params, task_name)
    check_requirements(params)
    if task.dates is not None:
        raise GfmError(
            f"tasks.{task_name} has several dates a sample; gfm predict is for one date, and pairs of change"
        )
    if probabilities and task.kind not in CLASS_MAPS:
        raise GfmError(
            f"--probabilities is for {' and '.join(CLASS_MAPS)}; tasks.{task_name} is {task.kind}; leave it out"
        )
    items = find_items(task, inputs)
    folder = task_folder(task_name, model_name)
    seed = best_seed(folder) if seed is None else seed
    origin = provenance(seed)  # of the code that runs now
    predictor = Predictor.load(params, task_name, folder, seed)
    dense = is_dense(predictor.file.kind, predictor.model.spec)
    imagery, trained_on = task.data.imagery, predictor.file.trained_on
    if str(imagery) != str(trained_on.imagery):  # NaN as nodata equals no other NaN
        say(f"note: tasks.{task_name}.data.imagery was another when the model was trained; files are read as it is now")
    weights, suffixes = predictor.file.weights, SUFFIXES if probabilities else SUFFIXES[:1]
    settings: dict[str, Any] = {
        "imagery": imagery.model_dump(),
        "window": trained_on.chip,
        "precision": predictor.precision,
    }
    if dense:
        check_names(items, suffixes)
        settings |= {"overlap": overlap, "probabilities": probabilities}
    made: list[dict[str, Any]] = []
    files = [TABLE]  # of the results
    failed: dict[Path, str] = {}

    def fail(error: ImageError) -> None:
        fix = error.fix.replace("imagery.", f"tasks.{task_name}.data.imagery.")
        failed[error.path] = f"{error.reason}{'; ' if fix else ''}{fix}"
        say(f"cannot be used: {error.path}: {failed[error.path]}")

    with growing_folder(out) as unfinished:
        keep_only(unfinished, _of_use(items, suffixes) if dense else ())
        with measure(params.carbon, f"predict {task_name}/{model_name}") as meter:
            if dense:
                tags = {
                    "GFM_TASK": task_name,
                    "GFM_MODEL": model_name,
                    "GFM_SEED": str(seed),
                    "GFM_WEIGHTS_SHA256": next(iter(weights.values())),
                    "GFM_COMMIT": str(origin["commit"] or "unknown"),
                }
                depends = json.dumps([tags, weights, settings, source_digest()])
                mapper = Mapper(predictor, imagery, overlap, probabilities, tags, depends)
                made, files = _map(mapper, items, unfinished, fail)
                done = len(made)
            else:
                done = predict_images(predictor, items, imagery, unfinished, fail)
        if not done:
            (unfinished / TABLE).unlink(missing_ok=True)  # which has no rows
            raise DataError(f"nothing could be predicted: {_few(failed)}")
        energy, kept = meter.energy, sum(scene["kept"] for scene in made)
        if kept:
            energy = replace(
                energy, method=f"{energy.method}; without {counted(kept, 'scene')} of a call that did not end"
            )
        _write_failed(unfinished, failed)
        write_run(
            unfinished / RUN,
            {
                "task": task_name,
                "kind": task.kind,
                "model": model_name,
                "seed": seed,
                "weights": weights,
                **settings,
                "predicted": done,
                "failed": len(failed),
                "seconds": round(energy.seconds, 3),
                "scenes": made,
                "provenance": origin,
                "energy": energy.as_dict(),
            },
        )
        keep_only(unfinished, [*files, RUN, *([FAILED] if failed else [])])
    what = counted(done, "scene") if dense else f"{counted(done, 'image')} in {TABLE}"
    say(f"{task_name}, {model_name}, seed {seed}: {what}, {energy.seconds:.0f} s, written to {out}")
    if failed:
        raise DataError(f"{len(failed)} of {len(items)} could not be predicted, see {out / FAILED}: {_few(failed)}")


def _of_use(items: Sequence[Item], suffixes: Sequence[str]) -> set[str]:
    """The names of the files of a stopped call that may be taken over."""
    names = {record_name(item.name) for item in items}
    return names | {f"{item.name}{end}.tif{more}" for item in items for end in suffixes for more in ("", ".aux.xml")}


def _map(
    mapper: Mapper, items: Sequence[Item], folder: Path, fail: Callable[[ImageError], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What is to be recorded of every scene that can be used, and the names of their maps' files."""
    made, files = [], []
    for item in items:
        try:
            about, own = mapper.predict(item, folder)
        except ImageError as error:
            fail(error)
        else:
            made.append(about)
            files += [file.name for file in own]
    return made, files


def _write_failed(folder: Path, failed: Mapping[Path, str]) -> None:
    if not failed:
        return
    with (folder / FAILED).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file", "reason"))
        table.writerows(failed.items())


def _few(failed: Mapping[Path, str]) -> str:
    shown = [f"{path}: {reason}" for path, reason in failed.items()][:SHOWN_FAILURES]
    more = len(failed) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
