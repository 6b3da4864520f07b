"""The teacher's features of fixed crops, computed once and read by every training that needs the same ones.

`checkpoints/teacher-features/KEY/CROP/BLOCK.arrow`: one Arrow file for so many images, with their ids and features as
half floats, memory-mapped. KEY names everything that a feature depends on, so another teacher, collection, crop or
seed is another folder. A kill loses the block in hand.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from gfm.errors import GfmError
from gfm.models.distill import teacher_feature
from gfm.models.encoder import Encoder
from gfm.models.tap import TapPoint, find_tap
from gfm.output_file import write_whole
from gfm.params import FollowsTeacher
from gfm.pretraining.collection import Rows
from gfm.pretraining.data import CropDataset, FixedBatches, make_loader
from gfm.pretraining.trainer import CHECKPOINTS, Processes
from gfm.progress import say, track

FOLDER = CHECKPOINTS / "teacher-features"
BLOCK = 4096  # images a file
KEY_FILE = "key.json"
WAIT_S = 600.0  # for another process's next block


class TeacherCache:
    """Features of the crops of one split: `feature(crop, row)` is float16 (Ct,).

    Opened lazily in every process, so that worker processes share the pages and not the file objects.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: dict[tuple[int, int], NDArray[np.float16]] = {}

    def feature(self, crop: int, row: int) -> Tensor:
        """The feature of one crop of one row."""
        number, place = divmod(row, BLOCK)
        block = self._blocks.get((crop, number))
        if block is None:
            block = self._blocks[crop, number] = _read(self.path(crop, number))
        return torch.from_numpy(block[place].copy())

    def path(self, crop: int, block: int) -> Path:
        """Where a block of a crop lies."""
        return self.folder / f"{crop}" / f"{block:06d}.arrow"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_blocks": {}}


@dataclass(frozen=True, slots=True)
class TeacherPass:
    """How the teacher looks at crops."""

    teacher: Encoder
    settings: FollowsTeacher
    precision: str  # Lightning's name for it
    device: torch.device
    batch_size: int
    workers: int
    key: str  # of the pretraining, for errors

    @property
    def tap(self) -> TapPoint:
        """Where the features are taken."""
        tap = self.settings.teacher_tap
        return find_tap(self.teacher.backbone, stage=tap.stage, merged=tap.merged, key=f"{self.key}.teacher_tap")

    def features(self, dataset: CropDataset, crop: int, rows: range) -> NDArray[np.float16]:
        """The features (len(rows), Ct) of one crop of some rows."""
        batches = FixedBatches(len(rows), batch_size=self.batch_size, epoch=crop)
        batches.batches = [[(crop, rows[row]) for _, row in batch] for batch in batches.batches]
        kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        loader = make_loader(dataset, batches, workers=self.workers)
        tap, parts = self.tap, []
        for batch in track(loader, f"teacher features, crop {crop}", total=len(batches), unit="batches"):
            image = batch.to(self.device).pictures
            with torch.autocast(self.device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
                found = teacher_feature(self.teacher, tap, self.settings.teacher_px, image)
            parts.append(found.to(torch.float16).cpu())
        return torch.cat(parts).numpy()


def fill_cache(
    dataset: CropDataset,
    split: str,
    crops: list[int],
    how: TeacherPass,
    belongs: Mapping[str, Any],
    processes: Processes,
) -> TeacherCache:
    """Compute what is missing of the features of `crops` of `dataset` and return them all.

    Several processes share the blocks and wait for each other's. `belongs` says what data and teacher the features
    are of; folders of others are removed.
    """
    whole = {
        "belongs": dict(belongs),
        "split": split,
        "rows": dataset.rows.fingerprint(),  # a feature is found by its row, and a pretraining may leave rows out
        "crop": dataset.crop.model_dump(mode="json"),
        "px": dataset.px,
        "seed": dataset.seed,
        "tap": how.settings.teacher_tap.model_dump(mode="json"),
        "teacher_px": how.settings.teacher_px,
        "precision": how.precision,
    }
    if dataset.decoded is not None and dataset.decoded.px is not None:  # else the images are those of the shards
        whole["decoded_px"] = dataset.decoded.px
    if dataset.enough_px is not None:
        whole["enough_px"] = dataset.enough_px
    text = json.dumps(whole, indent=1, sort_keys=True)
    cache = TeacherCache(FOLDER / xxhash.xxh3_64_hexdigest(text.encode()))
    if processes.rank == 0:
        _remove_stale(dict(belongs))
        if not (cache.folder / KEY_FILE).exists():
            write_whole(cache.folder / KEY_FILE, text)
    wanted = [(crop, block) for crop in crops for block in range(-(-len(dataset) // BLOCK))]
    missing = [place for place in wanted if not cache.path(*place).exists()]
    if missing and processes.rank == 0:
        size = len(dataset) * len(crops) * how.tap.channels * 2 / 1e6
        say(f"{cache.folder}: teacher features of {len(crops)} crops of {len(dataset)} {split} images, {size:.1f} MB")
    how.teacher.to(how.device).eval()
    for crop, block in missing[processes.rank :: processes.count]:
        rows = range(block * BLOCK, min((block + 1) * BLOCK, len(dataset)))
        _write(cache.path(crop, block), dataset.rows, rows, how.features(dataset, crop, rows))
    for place in missing:
        wait_for(cache.path(*place))
    return cache


def _write(path: Path, rows: Rows, numbers: range, features: NDArray[np.float16]) -> None:
    if not np.isfinite(features).all():
        raise GfmError(f"{path}: the teacher gave values that are not finite; use precision 32-true")
    table = pa.table(
        {
            "id": pa.array([rows.id(number) for number in numbers]),
            "feature": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=BLOCK)
    unfinished.replace(path)


def _read(path: Path) -> NDArray[np.float16]:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise GfmError(f"{path}: cannot be read ({error}); remove it, and the features are computed again") from None
    column = table["feature"].combine_chunks()
    return column.values.to_numpy(zero_copy_only=True).reshape(len(column), -1)  # type: ignore[no-any-return]


def wait_for(path: Path, seconds: float = WAIT_S) -> None:
    """Return once the file is there; GfmError where another process does not make it in that time."""
    waited = time.monotonic()
    while not path.exists():
        if time.monotonic() - waited > seconds:
            raise GfmError(f"{path}: the process that was to compute it has not within {seconds:.0f} s; start again")
        time.sleep(0.2)


def _remove_stale(belongs: dict[str, Any]) -> None:
    """Remove features of another teacher or of other data; those of other crops and seeds stay."""
    for key_file in FOLDER.glob(f"*/{KEY_FILE}"):
        if json.loads(key_file.read_text(encoding="utf-8"))["belongs"] != belongs:
            shutil.rmtree(key_file.parent)
