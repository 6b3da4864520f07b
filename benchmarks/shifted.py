"""What the leakage guard catches of planted leaks, whom it accuses wrongly, and what looking for shifted copies costs.

    python benchmarks/shifted.py [--grounds 96] [--json OUT]
    python benchmarks/shifted.py --images FOLDER [--include "*/images/*.png"] [--px 512]

Of each square of ground the upper left quarter is held out. It is leaked in every way of the table, as a JPEG of
quality 80 unless the way says otherwise, and the guard looks for all leaks of one way among all that is held out: by
pixels and looks at `splits.leak_bits` 3 and 6, and with `splits.find_shifted`. A pair of different squares that it
finds is a false alarm. Nothing is georeferenced: a footprint finds every leak that overlaps.

The ground is drawn by code (the kinds of land of the embedded sample), or cut from the images of FOLDER, whose
slippy-map tiles (NAME-X-Y-ZOOM.png) are joined to squares of two by two before. `--px` is a square's side.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image as Pil

from gfm.geopile.leakage import find_leaks
from gfm.imagery.footprint import slippy_numbers
from gfm.imagery.hashing import dhash, dihedral_dhashes, pixel_hash
from gfm.imagery.keypoints import Keypoints, both_ways, keypoints, same_ground
from gfm.sample.sources import SCENE_SETS, picture
from interleaved import Way, header, run, write_json
from made_images import Image

BITS = (3, 6)  # the default of splits.leak_bits, and twice that
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
NOWHERE = dict.fromkeys(("west", "south", "east", "north"))

Leak = Callable[[Image, int], Image]  # of a square of ground, and the side of what is held out


def jpeg(image: Image, quality: int) -> Image:
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
    return np.asarray(simplejpeg.decode_jpeg(encoded))


def scaled(image: Image, factor: float) -> Image:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=how))


def lit(image: Image, gain: float) -> Image:
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def moved(ground: Image, held: int, across: float, down: float = 0) -> Image:
    """As large as what is held out, shifted by these shares of its side."""
    x, y = round(across * held), round(down * held)
    return ground[y : y + held, x : x + held]


def zoomed(ground: Image, held: int, sides: float) -> Image:
    """Ground so many times as wide, from the same corner (or inside, where it is a part), in as many pixels."""
    wide = min(round(sides * held), len(ground))
    start = (held - wide) // 2 if sides < 1 else 0
    return scaled(ground[start : start + wide, start : start + wide], held / wide)


def again(quality: int, leak: Leak) -> Leak:
    return lambda ground, held: jpeg(leak(ground, held), quality)


def same(ground: Image, held: int) -> Image:
    return ground[:held, :held]


def quarter(ground: Image, held: int) -> Image:
    return moved(ground, held, 0.25)


WAYS: dict[str, Leak] = {
    "byte for byte": same,
    **{f"as JPEG of quality {quality}": again(quality, same) for quality in (95, 80, 50, 20)},
    "turned": again(80, lambda ground, held: np.rot90(same(ground, held))),
    "mirrored": again(80, lambda ground, held: same(ground, held)[:, ::-1]),
    "at half the pixels": again(80, lambda ground, held: scaled(same(ground, held), 0.5)),
    "at twice the pixels": again(80, lambda ground, held: scaled(same(ground, held), 2)),
    "brighter by a fifth": again(80, lambda ground, held: lit(same(ground, held), 1.2)),
    "darker by a third": again(80, lambda ground, held: lit(same(ground, held), 0.67)),
    **{
        f"shifted, {100 - shift} % in common": again(80, partial(moved, across=shift / 100))
        for shift in (1, 2, 5, 10, 25, 50)
    },
    "shifted both ways, 25 % in common": again(80, partial(moved, across=0.5, down=0.5)),
    "75 % in common, JPEG 50": again(50, quarter),
    "75 % in common, at half the pixels": again(80, lambda ground, held: scaled(quarter(ground, held), 0.5)),
    "75 % in common, at twice the pixels": again(80, lambda ground, held: scaled(quarter(ground, held), 2)),
    "75 % in common, turned": again(80, lambda ground, held: np.rot90(quarter(ground, held))),
    "75 % in common, mirrored": again(80, lambda ground, held: quarter(ground, held)[:, ::-1]),
    "75 % in common, brighter by a fifth": again(80, lambda ground, held: lit(quarter(ground, held), 1.2)),
    "wider ground, 1.4 times": again(80, partial(zoomed, sides=1.4)),
    "wider ground, twice": again(80, partial(zoomed, sides=2)),
    "a part of it, 2/3": again(80, partial(zoomed, sides=2 / 3)),
    "a part of it, half": again(80, partial(zoomed, sides=0.5)),
}


def drawn(squares: int, px: int) -> Iterator[Image]:
    """Squares of ground of every kind of land that the embedded sample knows."""
    kinds = [(scenes, label) for scenes in SCENE_SETS for label in scenes.classes]
    for number in range(squares):
        scenes, label = kinds[number % len(kinds)]
        yield picture(replace(scenes, sides=(px,)), scenes.classes[label], label, "benchmark", number)[0]


def cut(folder: Path, include: str, px: int) -> Iterator[Image]:
    """Squares of the images of a folder, neighbouring slippy-map tiles joined first."""
    files = sorted(path for path in folder.glob(include) if path.suffix.lower() in SUFFIXES)
    blocks: dict[tuple[Path, int, int, int], list[Path]] = {}
    for path in files:
        tile = slippy_numbers(path.stem)
        if tile is not None:
            x, y, zoom = tile
            blocks.setdefault((path.parent, x // 2, y // 2, zoom), []).append(path)
    joined = {path for block in blocks.values() if len(block) == 4 for path in block}
    for image in [*(read(path) for path in files if path not in joined), *map(join, blocks.values())]:
        if image is not None:
            for y in range(0, image.shape[0] - px + 1, px):
                for x in range(0, image.shape[1] - px + 1, px):
                    yield image[y : y + px, x : x + px]


def read(path: Path) -> Image:
    with Pil.open(path) as file:
        return np.asarray(file.convert("RGB"))


def join(block: Sequence[Path]) -> Image | None:
    """Four tiles as one image, or nothing where one is missing."""
    if len(block) < 4:
        return None
    # x grows to the east, y to the south: sorted by (y, x) they are the upper two, then the lower two.
    tiles = [read(path) for path in sorted(block, key=lambda path: (slippy_numbers(path.stem) or (0, 0))[1::-1])]
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is not to leak: as the guard reads it of a task's index."""

    columns: dict[str, list[str] | list[None]]
    corners: list[Keypoints]  # two an image: of it and of its mirror image


def held_out(images: Sequence[Image]) -> HeldOut:
    columns = {
        "id": [str(number) for number in range(len(images))],
        "split": ["test"] * len(images),
        "pixel_hashes": [json.dumps([pixel_hash(image)]) for image in images],
        "dhashes": [json.dumps([dihedral_dhashes(image)]) for image in images],
        **{side: [None] * len(images) for side in NOWHERE},
    }
    return HeldOut(columns, [one for image in images for one in both_ways(image)])


def guard(leaks: Sequence[Image], held: HeldOut) -> list[set[tuple[int, int]]]:
    """Pairs (leak, held-out image) found at each of BITS, and with corners at the first of them."""
    manifest = {
        "id": [str(number) for number in range(len(leaks))],
        "pixel_hash": [pixel_hash(image) for image in leaks],
        "dhash": [dhash(image) for image in leaks],
        **{side: [None] * len(leaks) for side in NOWHERE},
    }
    found = [
        {(int(leak.id), int(leak.sample)) for leak in find_leaks(manifest, {"task": held.columns}, bits).leaks}
        for bits in BITS
    ]
    corners = {(image, entry // 2) for image, entry in same_ground([keypoints(image) for image in leaks], held.corners)}
    return [*found, found[0] | corners]


def table(found: dict[str, list[set[tuple[int, int]]]], squares: int) -> str:
    """Caught shares and numbers of false alarms, in Markdown."""
    pairs = squares * (squares - 1)
    lines = [
        f"| {squares} squares; the leaked image is the held-out one | by looks, leak_bits 3 | leak_bits 6 | "
        f"3 and find_shifted | others accused, of {pairs:,} |",
        "|---|---|---|---|---|",
    ]
    for name, ways in found.items():
        caught = [sum(one == other for one, other in pairs) for pairs in ways]
        shares = " | ".join(f"{number / squares:.0%}".replace("%", " %") for number in caught)
        wrong = ", ".join(str(len(pairs) - right) for pairs, right in zip(ways, caught, strict=True))
        lines.append(f"| {name} | {shares} | {wrong} |")
    return "\n".join(lines)


def cost(images: Sequence[Image], held: HeldOut, rounds: int) -> str:
    """Milliseconds of one core an image, beside decoding it as a JPEG of quality 90."""
    encoded = [simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90) for image in images]
    corners = [keypoints(image) for image in images]
    many = f"compared with {len(images)} held-out images"

    def all_of(function: Callable[[Image], object]) -> Callable[[], int]:
        return lambda: len([function(image) for image in images])

    def compared() -> int:
        same_ground(corners, held.corners)
        return len(corners)

    ways = [
        Way("decoded", lambda: len([simplejpeg.decode_jpeg(data) for data in encoded])),
        Way("its corners", all_of(keypoints)),
        Way("its corners and those of its mirror image (of what is held out)", all_of(both_ways)),
        Way(many, compared),
    ]
    run(ways, rounds)
    lines = [f"| an image of {images[0].shape[0]} px | ms of a core | lowest-highest |", "|---|---|---|"]
    for way in ways:
        each = [1000 * seconds / way.images for seconds in way.cpu_s]
        lines.append(f"| {way.name} | {statistics.median(each):.2f} | {min(each):.2f}-{max(each):.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="cut the ground from its images")
    parser.add_argument("--include", default="**/*", help="which files of FOLDER (default **/*)")
    parser.add_argument("--px", type=int, default=512, help="side of a square of ground (default 512)")
    parser.add_argument("--grounds", type=int, default=96, help="squares drawn without --images (default 96)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing after the first (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the pairs that were found there too")
    args = parser.parse_args()
    grounds = list(drawn(args.grounds, args.px) if args.images is None else cut(args.images, args.include, args.px))
    if len(grounds) < 2:
        parser.error(f"{args.images}: holds {len(grounds)} squares of {args.px} px; two are needed")
    side = args.px // 2
    originals = [np.ascontiguousarray(same(ground, side)) for ground in grounds]
    held = held_out(originals)
    found = {
        name: guard([np.ascontiguousarray(leak(ground, side)) for ground in grounds], held)
        for name, leak in WAYS.items()
    }
    print(header("opencv-python-headless", "numpy", "simplejpeg"))
    print(table(found, len(grounds)))
    plain = sum(not len(one.words) for one in held.corners[::2])
    print(f"\n{plain} of {len(grounds)} held-out images have no corners.\n")
    print(cost(originals, held, args.rounds))
    write_json(args.json, {name: [sorted(pairs) for pairs in ways] for name, ways in found.items()})


if __name__ == "__main__":
    main()
