"""The finished seeds of a fine-tuning that has not ended: kept, so that a kill costs the seed in hand and no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from gfm.downstream.result import Reference, SeedResult
from gfm.layout import finished_seeds
from gfm.tracking.carbon import Energy
from gfm.tracking.provenance import content_hash

RESULT = "result.json"
RUN = "run.json"


class FinishedSeeds:
    """The seeds of one model on one task that were trained and tested with just these settings, data and code.

    Whoever holds `models/tasks/TASK/MODEL` (`output_folder.new_folder`) may use it. What belongs to other settings
    is removed: nobody would ask for it again.
    """

    def __init__(self, task_name: str, model_name: str, *known: str) -> None:
        above = finished_seeds(task_name, model_name)
        if above.exists() and not above.is_dir():
            above.unlink()
        self.folder = above / xxhash.xxh3_128_hexdigest("/".join(known).encode())
        for other in above.glob("*"):
            if other != self.folder or not other.is_dir():
                _remove(other)

    @property
    def run_id(self) -> str | None:
        """The run that trained them; None where none was recorded."""
        try:
            found = json.loads((self.folder / RUN).read_text(encoding="utf-8"))["run_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(found) if found else None

    @run_id.setter
    def run_id(self, run_id: str | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / RUN).is_dir():
            _remove(self.folder / RUN)
        (self.folder / RUN).write_text(json.dumps({"run_id": run_id}) + "\n", encoding="utf-8")

    def read(self, seed: int) -> tuple[SeedResult, Energy] | None:
        """What a seed gave; None where it was not finished, or its files are no longer what they were."""
        folder = self._of(seed)
        try:
            kept: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            if kept.pop("digest") != _digest(kept) or kept["files"] != _digests(folder):
                return None
            result = kept["result"]
            reference = result["reference"] and Reference(**result["reference"])
            found = SeedResult(**{**result, "reference": reference})
            return (found, Energy(**kept["energy"])) if found.seed == seed else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @contextmanager
    def place(self, seed: int) -> Iterator[Path]:
        """An empty folder for a seed's files; when the block ends without an error they are there to stay."""
        final = self._of(seed)
        unfinished = final.with_name(f".{final.name}.new")
        _remove(unfinished)
        unfinished.mkdir(parents=True)
        yield unfinished
        _remove(final)  # one that `read` did not believe
        unfinished.replace(final)

    def give_to(self, folder: Path, seeds: Sequence[int]) -> None:
        """Copy the files of these seeds to `folder`."""
        for seed in seeds:
            for path in self._of(seed).iterdir():
                if path.name != RESULT:
                    shutil.copyfile(path, folder / path.name)

    def forget(self) -> None:
        """Keep nothing: the fine-tuning has ended."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _of(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"


def write_result(folder: Path, result: SeedResult, energy: Energy) -> None:
    """Say in a seed's folder, after its other files, what it gave."""
    kept: dict[str, Any] = {"result": asdict(result), "energy": energy.as_dict(), "files": _digests(folder)}
    (folder / RESULT).write_text(json.dumps(kept | {"digest": _digest(kept)}) + "\n", encoding="utf-8")


def _digests(folder: Path) -> dict[str, str | None]:
    return {path.name: content_hash(path) for path in sorted(folder.iterdir()) if path.name != RESULT}


def _digest(kept: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(kept, sort_keys=True).encode())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
