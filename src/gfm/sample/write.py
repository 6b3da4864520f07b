"""`gfm sample`: write the embedded sample into a folder, once, whole, and the same bytes on every machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from gfm.errors import DataError
from gfm.output_folder import new_folder
from gfm.progress import say, track
from gfm.sample import sources, tasks
from gfm.sample.sources import File, Job

MARKER = "SAMPLE.json"  # in the folder: the sample's version and the size of every file
VERSION = 1  # raise it when the imagery changes

_README = """The embedded sample of gfm

Everything in this folder is drawn by `gfm sample` (src/gfm/sample): no picture shows a real place, and no file comes
from the data sets whose folder layouts are used (NAIP, RSD46-WHU, MLRSNet, NWPU-RESISC45, PatternNet, UC Merced, WHU
Aerial, Onera Satellite Change Detection, BigEarthNet v2, SpaceNet 2). Scores on it say whether the chain works and
which model is better on drawn land; they cannot be compared with published scores.

Three files are deliberately unusable (cut off, empty, one band), and two images of PatternNet are flipped copies of
UC Merced images: `gfm assemble` quarantines the first, `gfm split` takes the second out of pretraining.

Licence: Apache-2.0, as gfm itself.
"""


def write_sample(folder: Path) -> None:
    """Write the sample into `folder`; a complete sample is left as it is, an incomplete or older one is replaced.

    Raises DataError when the folder holds anything that is not the sample's, GfmError where it is no folder.
    """
    if folder.is_dir() and any(folder.iterdir()):
        wrong = _wrongness(folder)
        if not wrong:
            say(f"{folder}: the sample is complete; nothing to do")
            return
        say(f"{folder}: {wrong}; writing it again")
    start = time.monotonic()
    sizes: dict[str, int] = {}
    with new_folder(folder) as new:
        for path, content in _files():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            sizes[path] = len(content)
        marker = {"version": VERSION, "files": dict(sorted(sizes.items()))}
        (new / MARKER).write_text(json.dumps(marker, indent=0) + "\n", encoding="utf-8")
    megabytes = sum(sizes.values()) / 1e6
    say(f"{folder}: {len(sizes)} files, {megabytes:.1f} MB of generated imagery in {time.monotonic() - start:.1f} s")


def _files() -> Iterator[File]:
    yield "README.md", _README.encode()
    work = [*sources.jobs(), *tasks.jobs()]
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for files in track(pool.map(_do, work), "drawing the sample", total=len(work), unit="folders"):
            yield from files


def _do(job: Job) -> list[File]:
    return job()


def _wrongness(folder: Path) -> str:
    """What keeps the folder from being this version's sample; empty where nothing does."""
    marker = folder / MARKER
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
        version, sizes = known["version"], {str(path): int(size) for path, size in known["files"].items()}
    except FileNotFoundError:
        raise DataError(f"{folder}: holds files that are not the sample's; choose an empty folder") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{marker}: cannot be read; delete {folder} if it is the sample") from None
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    foreign = sorted(set(found) - set(sizes) - {MARKER})
    if foreign:
        raise DataError(
            f"{folder}: holds files that are not the sample's ({foreign[0]}); move them or choose another folder"
        )
    if version != VERSION:
        return f"the sample is of version {version}, not {VERSION}"
    differing = [path for path, size in sizes.items() if found.get(path) != size]
    return f"the sample lacks {len(differing)} files ({differing[0]})" if differing else ""
