"""What assembling a collection costs beside decoding its images, how the cost grows, and what more processes give.

    taskset -c 3 python benchmarks/assemble.py [--images 1000] [--rounds 3] [--json OUT]
    taskset -c 3 python benchmarks/assemble.py --images 0 --growth 1000 10000 100000
    python benchmarks/assemble.py --images 0 --workers 1 2 4

The first table sets `gfm assemble` (one process) against decoding alone, and against a plain loop that decodes with PIL
or rasterio, hashes the pixels and copies: 256 px JPEGs in class folders, and 1024 px GeoTIFF scenes of four bands, cut
into 256 px tiles. Rounds alternate; ratios are of processor time. --growth assembles so many 64 px JPEGs, each size
once. --workers takes the clock's time, so nothing else should run; what the process that hands out the work needs of a
processor is told beside it. All tables are Markdown.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import rasterio
from PIL import Image
from rasterio.windows import Window

from gfm.geopile import assemble as assembly
from gfm.geopile.cache import FOLDER as REMEMBERED
from gfm.imagery.pictures import decode_jpeg
from gfm.params import Params
from interleaved import Way, arguments, header, run, summary, table, write_json
from made_collection import LABELLED, SCENE_BANDS, params
from made_images import SCENE_PX, write_class_folders, write_scenes

TILE_PX = 256
SMALL_PX = 64
TILES_A_SCENE = (SCENE_PX // TILE_PX) ** 2
FULL_SIZE = 600_000
SCENES = {
    "format": "scenes",
    "root": "scenes",
    "licence": "none",
    "imagery": {"dtype": "uint8", "bands": SCENE_BANDS},
}


def quietly(chosen: Params, *, again: bool = False) -> float:
    """Assemble, without its lines; seconds by the clock. `again`: with what the last assembly left to remember."""
    if not again:
        shutil.rmtree(REMEMBERED, ignore_errors=True)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        assembly.assemble(chosen)
    return time.perf_counter() - began


def decode_jpegs(paths: Sequence[Path]) -> int:
    """Read and decode, as the assembly does."""
    for path in paths:
        decode_jpeg(path.read_bytes())
    return len(paths)


def decode_by_pil(paths: Sequence[Path]) -> int:
    """What most people decode with."""
    for path in paths:
        np.asarray(Image.open(path))
    return len(paths)


def plain_jpegs(paths: Sequence[Path], target: Path) -> int:
    """What one would write without a library: PIL, a hash of the pixels, a copy of the file."""
    target.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        hashlib.md5(np.asarray(Image.open(path).convert("RGB")).tobytes()).hexdigest()
        shutil.copyfile(path, target / f"{number}.jpg")
    return len(paths)


def tiles(paths: Sequence[Path], use: Callable[[int, np.ndarray], object]) -> int:
    """Read the scenes tile by tile with rasterio."""
    number = 0
    for path in paths:
        with rasterio.open(path) as file:
            for y in range(0, SCENE_PX, TILE_PX):
                for x in range(0, SCENE_PX, TILE_PX):
                    use(number, file.read(window=Window(x, y, TILE_PX, TILE_PX)))
                    number += 1
    return number


def plain_tiles(paths: Sequence[Path], target: Path) -> int:
    """rasterio, a hash of the pixels, the pixels as a file."""
    target.mkdir(exist_ok=True)

    def keep(number: int, pixels: np.ndarray) -> None:
        hashlib.md5(pixels.tobytes()).hexdigest()
        (target / f"{number}.bin").write_bytes(pixels.tobytes())

    return tiles(paths, keep)


def assembled(chosen: Params, images: int, *, again: bool = False) -> int:
    """The whole command, in this process."""
    quietly(chosen, again=again)
    return images


def ways_of_jpegs(raw: Path, images: int) -> list[Way]:
    """Class folders; decoding first."""
    paths = write_class_folders(raw / "photos", images, TILE_PX)
    chosen = params({"photos": LABELLED}, raw)
    return [
        Way("decoding alone", partial(decode_jpegs, paths)),
        Way("decoding by PIL", partial(decode_by_pil, paths)),
        Way("plain loop: PIL, md5, copy", partial(plain_jpegs, paths, Path("copies"))),
        Way("gfm assemble", partial(assembled, chosen, images), aim=round(1 / 1.3, 2)),
        Way("again, nothing changed", partial(assembled, chosen, images, again=True)),
    ]


def ways_of_scenes(raw: Path, images: int) -> list[Way]:
    """Scenes; decoding first."""
    paths = write_scenes(raw / "scenes", max(images // TILES_A_SCENE, 1))
    chosen = params({"scenes": SCENES}, raw, bands=list(SCENE_BANDS), tile_px=TILE_PX)
    return [
        Way("decoding alone, by rasterio", partial(tiles, paths, lambda number, pixels: None)),
        Way("plain loop: rasterio, md5, raw copy", partial(plain_tiles, paths, Path("copies"))),
        Way("gfm assemble", partial(assembled, chosen, len(paths) * TILES_A_SCENE), aim=round(1 / 1.3, 2)),
        Way("again, nothing changed", partial(assembled, chosen, len(paths) * TILES_A_SCENE, again=True)),
    ]


def growth(sizes: Sequence[int]) -> list[dict[str, float]]:
    """Milliseconds of processor time an image, for each number of small images."""
    print(f"\n| {SMALL_PX} px images | ms an image | by the clock | x the first |\n|---|---|---|---|")
    rows: list[dict[str, float]] = []
    for images in sizes:
        with tempfile.TemporaryDirectory(prefix="gfm-growth-") as folder, contextlib.chdir(folder):
            write_class_folders(Path("raw/photos"), images, SMALL_PX)
            cpu = time.process_time()
            seconds = quietly(params({"photos": LABELLED}, Path("raw")))
            own = (time.process_time() - cpu) / images * 1e3
        rows.append({"images": images, "cpu_ms": own, "wall_ms": seconds / images * 1e3})
        print(f"| {images:,} | {own:.2f} | {seconds / images * 1e3:.2f} | {own / rows[0]['cpu_ms']:.2f} |", flush=True)
    return rows


def in_processes(counts: Sequence[int], images: int) -> list[dict[str, float]]:
    """Images a second by the clock, for each number of processes."""
    assembly.FEW_FILES = 1  # type: ignore[attr-defined]
    rows: list[dict[str, float]] = []
    print(f"\n| processes, {images} images of {TILE_PX} px | images/s | x the first | {FULL_SIZE:,} images | parent |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="gfm-workers-") as folder, contextlib.chdir(folder):
        write_class_folders(Path("raw/photos"), images, TILE_PX)
        for workers in counts:
            cpu = time.process_time()
            rate = images / quietly(params({"photos": LABELLED}, Path("raw"), workers=workers))
            parent = (time.process_time() - cpu) / images * 1e3
            rows.append({"workers": workers, "images_per_s": rate, "parent_ms": parent})
            times, minutes = rate / rows[0]["images_per_s"], FULL_SIZE / rate / 60
            print(
                f"| {workers} | {rate:,.0f} | {times:.2f} | {minutes:.0f} min | {parent:.2f} ms an image |", flush=True
            )
    return rows


def main() -> None:
    """Measure and print what was asked for."""
    parser = arguments(__doc__, images=1000, rounds=3)
    parser.add_argument("--growth", type=int, nargs="+", default=[], metavar="N", help="numbers of images")
    parser.add_argument("--workers", type=int, nargs="+", default=[], metavar="N", help="numbers of processes")
    parser.add_argument("--worker-images", type=int, default=8000, help="images for --workers (default 8000)")
    options = parser.parse_args()
    json_file = options.json.absolute() if options.json else None
    cv2.setNumThreads(1)
    print(f"`python benchmarks/assemble.py {' '.join(sys.argv[1:])}`")
    print(header("pillow", "rasterio", "opencv-python-headless", "simplejpeg", "pyarrow"))
    results: dict[str, object] = {}
    for name, make in (("class folders, 256 px JPEG", ways_of_jpegs), ("4-band scenes, 256 px tiles", ways_of_scenes)):
        if not options.images:
            break
        with tempfile.TemporaryDirectory(prefix="gfm-assemble-") as folder, contextlib.chdir(folder):
            found = make(Path("raw"), options.images)
            run(found, options.rounds)
            results[name] = summary(found)
            print("\n" + table(name, summary(found)), flush=True)
    if options.growth:
        results["growth"] = growth(options.growth)
    if options.workers:
        results["workers"] = in_processes(options.workers, options.worker_images)
    write_json(json_file, results)


if __name__ == "__main__":
    main()
