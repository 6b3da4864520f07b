"""Whether the places that a task's split names are there: a listing of its folders, no image is read."""

from __future__ import annotations

from pathlib import Path

from gfm.downstream.formats import open_format
from gfm.downstream.split import split_places
from gfm.errors import GfmError
from gfm.params import ParameterFaults, Params


def check_named_places(params: Params, raw: Path) -> None:
    """ParameterFaults where `split.val` or `split.test` of tasks below the folder `raw` names what is no place of it.

    Splits by share name none, and published ones go before names: neither is looked at, nor what repeats another task,
    nor a root that is not there.
    """
    faults: list[str] = []
    for name, task in params.tasks.items():
        split = task.data.split
        if task.variant_of is not None or not (split.val or split.test) or not (raw / task.data.root).is_dir():
            continue
        try:
            scenes, _ = open_format(name, task, raw).scenes()
            if all(scene.part is None for scene in scenes):
                split_places(name, (scene.place for scene in scenes), split)
        except GfmError as error:
            faults += error.faults
    if faults:
        raise ParameterFaults(faults)
