"""The guard's fourth sign, where `splits.find_shifted` asks for it: the same ground shifted or at another zoom.

Each image of the collection is decoded once, and its corners are compared with those that `gfm index` has kept of the
tasks' validation and test images (see `gfm.imagery.keypoints`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any, NamedTuple
from zipfile import BadZipFile

from gfm.errors import DataError
from gfm.geopile.leakage import Leak
from gfm.geopile.parallel import batches, in_this_process, ordered_map
from gfm.imagery.keypoints import Keypoints, keypoints, load_keypoints, same_ground
from gfm.imagery.shard_reader import ShardReader, decode_image
from gfm.layout import SHARDS, task_corners
from gfm.params import Params
from gfm.progress import track

COLUMNS = ["shard", "offset", "size"]

_AT_ONCE = 256
_FEW = 1000  # images for which no process is started


class _Image(NamedTuple):
    id: str
    shard: str
    offset: int
    size: int


def shifted_leaks(
    params: Params, manifest: Mapping[str, Sequence[Any]], tasks: Mapping[str, Mapping[str, Sequence[Any]]]
) -> list[Leak]:
    """Images that show a part of a held-out sample's ground, whatever their georeference; each pair once.

    DataError where an index was made without corners, or a table of corners is damaged or of another index.
    """
    split_of = {name: dict(zip(columns["id"], columns["split"], strict=True)) for name, columns in tasks.items()}
    _held_out.cache_clear()
    names = tuple(sorted(tasks))
    _check_samples(_held_out(names), split_of)
    columns = (manifest[name] for name in _Image._fields)
    images = [_Image(*row) for row in zip(*columns, strict=True)]
    workers = (params.geopile.workers or os.cpu_count() or 1) if len(images) > _FEW else 1
    with nullcontext(in_this_process) if workers == 1 else ordered_map(workers) as map_in_order:
        answers = map_in_order(partial(_shown, names), batches(images, _AT_ONCE))
        total = -(-len(images) // _AT_ONCE)
        pairs = [pair for found in track(answers, "looking for shifted copies", total, "batches") for pair in found]
    return [Leak(image, task, sample, split_of[task][sample], "shifted") for image, task, sample in pairs]


class _HeldOut(NamedTuple):
    of: list[tuple[str, str]]  # task and sample of each entry
    corners: list[Keypoints]


@lru_cache(maxsize=1)
def _held_out(tasks: tuple[str, ...]) -> _HeldOut:
    """All that images are compared with; every process reads it once."""
    held_out = _HeldOut([], [])
    for task in tasks:
        path = task_corners(task)
        try:
            names, corners = load_keypoints(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file, and splits.find_shifted is set; run `gfm index` again") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise DataError(f"{path}: cannot be read ({error}); run `gfm index` again") from None
        held_out.of.extend((task, name) for name in names)
        held_out.corners.extend(corners)
    return held_out


def _check_samples(held_out: _HeldOut, split_of: Mapping[str, Mapping[str, str]]) -> None:
    """DataError where corners lack a held-out sample or have another: what is not compared would seem no leak."""
    for task, splits in split_of.items():
        wanted = {sample for sample, split in splits.items() if split != "train"}
        strange = wanted ^ {sample for other, sample in held_out.of if other == task}
        if strange:
            lacks = "lacks" if min(strange) in wanted else "has corners of"
            reason = f"{lacks} {min(strange)}, unlike the index beside it"
            raise DataError(f"{task_corners(task)}: {reason}; run `gfm index` again")


def _shown(tasks: tuple[str, ...], images: Sequence[_Image]) -> list[tuple[str, str, str]]:
    """Image, task and sample of every pair that shows the same ground."""
    held_out, reader = _held_out(tasks), ShardReader(SHARDS)
    corners = [keypoints(decode_image(reader.bytes(*image[1:]), image.id)) for image in images]
    pairs = same_ground(corners, held_out.corners)
    return sorted({(images[one].id, *held_out.of[other]) for one, other in pairs})
