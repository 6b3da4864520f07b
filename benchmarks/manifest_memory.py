"""What `gfm assemble` holds in memory besides pixels: judging, duplicates, shards' plan and manifests of many images.

    python benchmarks/manifest_memory.py [10000 1000000]

The images are made up (hashes, places and names of usual length, 1 in 20 a copy of another, one of two sources left
out as well), and remembered as a first pass leaves them; no pixel is read and no shard is written. Each count runs in
a process of its own. "Peak" is the most that the process had in memory, everything included; "before" is that of the
program and its libraries.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np

from gfm.geopile.assemble import RETURNED, write_manifests
from gfm.geopile.cache import Cache
from gfm.geopile.catalogue import read_catalogue
from gfm.geopile.choice import choose
from gfm.geopile.findings import Told, part_name, write_part
from gfm.geopile.row import Row
from gfm.geopile.stored_shards import Places, plan_shards
from gfm.geopile.units import Unit
from gfm.imagery.footprint import Bounds
from gfm.params import Params

SOURCES = ("aerial", "satellite")
FILES = 128  # of a unit


def main() -> None:
    """Print the table; with --one, one line of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return _measure(args.images[0])
    print(
        f"{'images':>9} {'before MB':>9} {'peak MB':>8} {'judged s':>8} {'copies s':>8} {'manifests s':>11}", flush=True
    )
    for images in args.images:
        subprocess.run([sys.executable, __file__, "--one", str(images)], check=True)
    return None


def _measure(images: int) -> None:
    params = _parameters()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), Cache() as cache:
        units = _remembered(images, cache)
        before, start = _peak_mb(), time.monotonic()
        catalogue, _ = read_catalogue(params, units, cache)
        judged = time.monotonic()
        choice = choose(params, catalogue)
        shards = plan_shards(params, catalogue, choice.kept)
        shards += plan_shards(params, catalogue, choice.returned, RETURNED)
        chosen = time.monotonic()
        places = Places(
            [shard.name for shard in shards],
            np.where(choice.kept | choice.returned, 0, -1).astype(np.int32),
            np.zeros(len(catalogue), np.int64),
            np.full(len(catalogue), 50_000, np.int64),
        )
        write_manifests(params, Path(folder), catalogue, places, choice)
        seconds = judged - start, chosen - judged, time.monotonic() - chosen
    print(
        f"{images:>9,} {before:>9.0f} {_peak_mb():>8.0f} {seconds[0]:>8.1f} {seconds[1]:>8.1f} {seconds[2]:>11.1f}",
        flush=True,
    )


def _remembered(images: int, cache: Cache) -> list[Unit]:
    units = []
    for source in SOURCES:
        rows = _rows(source, images // len(SOURCES))
        for number in range(-(-(images // len(SOURCES)) // FILES)):
            part = [row for _, row in zip(range(FILES), rows, strict=False)]
            files = tuple(row.id.removeprefix(f"{source}/") for row in part)
            units.append(Unit(f"{source}-{number:032x}", source, files, None, 0))
            write_part(cache, part_name(units[-1], 0), part, Told(met=len(part), last=True))
    return units


def _rows(source: str, count: int) -> Iterator[Row]:
    dice = np.random.default_rng(SOURCES.index(source))
    for number in range(count):
        copied = number % 20 == 0  # the same picture in both sources
        pixels = f"{number:032x}" if copied else dice.bytes(16).hex()
        west, south = dice.uniform(-180, 179), dice.uniform(-60, 60)
        name = f"{source}/region-{number // 5000:04d}/scene_20200830_{number:09d}.tif#512,1024"
        yield Row(
            id=name,
            source=source,
            place="",
            file=name.split("#")[0],
            label="forest" if source == SOURCES[0] else None,
            width=256,
            height=256,
            gsd_m=0.6,
            crs="EPSG:32633",
            date="2020-08-30",
            entropy_bits=7.1234,
            contrast=41.2345,
            sharpness=512.3456,
            nodata_share=0.0,
            pixel_hash=pixels,
            dhash=pixels[-16:] if not copied else dice.bytes(8).hex(),
            bounds=Bounds(west, south, west + 0.01, south + 0.01),
        )


def _parameters() -> Params:
    data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    declared = {name: {"format": "scenes", "root": name, "licence": "CC0"} for name in SOURCES}
    return Params.model_validate(
        {
            "geopile": {"sources": declared, "leave_out": [SOURCES[0]]},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": data}},
        }
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
