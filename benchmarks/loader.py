"""How fast random crops come: from the shards and from the cache of decoded images, against torchvision's ImageFolder.

    taskset -c 3 python benchmarks/loader.py [--images 2000] [--rounds 5] [--px 256 600] [--json OUT]

Every way gives batches of the same images in one process with one thread, in alternating rounds; rates are of processor
time, so that other work on the machine disturbs the ratios little. The reference decodes with PIL, cuts with
RandomResizedCrop, flips, and makes normalised floats; ours are bytes that the device flips and normalises, so the
reference without floats stands beside it. With `resize_on: device` the loader only copies parts of images: what is left
for the device, which should not be a CPU, is done on this one in a way of its own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gfm.params import Crop
from gfm.pretraining.collection import read_rows
from gfm.pretraining.data import CropDataset, FixedBatches, make_loader
from gfm.pretraining.decoded_cache import DecodedCache
from gfm.pretraining.trainer import Processes
from interleaved import Way, arguments, header, run, summary, table, write_json
from made_collection import collect
from made_images import write_class_folders

CROP_PX = 192
BATCH = 128
CEILING_PX = 256
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def reference(folder: Path, *, floats: bool) -> DataLoader[Any]:
    """The published pipeline: torchvision's folder and random crop, PIL's decoder and resizing."""
    crop = [
        transforms.RandomResizedCrop(CROP_PX, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3)),
        transforms.RandomHorizontalFlip(),
    ]
    last = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)] if floats else [transforms.PILToTensor()]
    return DataLoader(ImageFolder(folder, transforms.Compose([*crop, *last])), batch_size=BATCH, shuffle=True)


def ours(name: str, aim: float | None, cache: DecodedCache | None = None, *, linear: bool = False, **more: Any) -> Way:
    """Training crops of the collection here, as a training without masks reads them."""
    rows = read_rows("train")
    crop = Crop(interpolation="linear" if linear else "antialiased")
    decoded = cache.of(rows) if cache else None
    dataset = CropDataset(rows, bands=3, px=CROP_PX, crop=crop, seed=0, decoded=decoded, **more)
    loader = make_loader(dataset, FixedBatches(len(rows), batch_size=BATCH, epoch=0), workers=0)
    return Way(name, lambda: sum(len(batch.rows) for batch in loader), aim)


def filled(px: int | None) -> DecodedCache:
    """The cache of decoded images, made."""
    cache = DecodedCache.of_collection(3, px, "pretrain.gfm")
    cache.fill(Processes(0, 1, 1), threads=1)
    return cache


def consume(loader: Iterable[Any]) -> int:
    """Read all batches; how many images they were."""
    return sum(len(batch[0]) for batch in loader)


def the_devices_part(cache: DecodedCache) -> Way:
    """Resizing one batch of parts as a device does it, on this processor."""
    rows = read_rows("train")
    dataset = CropDataset(rows, bands=3, px=CROP_PX, crop=Crop(), seed=0, decoded=cache.of(rows), resize_on="device")
    batch = dataset.__getitems__([(0, row) for row in range(min(BATCH, len(rows)))])
    return Way("the device's part of that, on this CPU", lambda: len(batch.crops))


def ways(raw: Path, px: int) -> list[Way]:
    """The reference first."""
    whole = filled(None)
    found = [
        Way("ImageFolder, PIL, RandomResizedCrop, floats", partial(consume, reference(raw / "photos", floats=True))),
        Way("the same, bytes", partial(consume, reference(raw / "photos", floats=False))),
        ours("shards", 2.5),
        ours("shards, linear", 2.5, linear=True),
        ours("shards, resize_on: device", 2.5, resize_on="device"),
        ours("decoded_cache", 10, whole),
        ours("decoded_cache, linear", 10, whole, linear=True),
        ours("decoded_cache, resize_on: device", 10, whole, resize_on="device"),
        the_devices_part(whole),
    ]
    if px > CEILING_PX:
        small, name = filled(CEILING_PX), f"decoded_px: {CEILING_PX}"
        found += [
            ours("shards, reduced_decoding", 2.5, reduced=True),
            ours("shards, reduced_decoding, resize_on: device", 2.5, reduced=True, resize_on="device"),
            ours(name, 10, small),
            ours(f"{name}, linear", 10, small, linear=True),
            ours(f"{name}, resize_on: device", 10, small, resize_on="device"),
        ]
    return found


def main() -> None:
    """Measure and print the tables."""
    parser = arguments(__doc__, images=2000, rounds=5)
    parser.add_argument("--px", type=int, nargs="+", default=[256, 600], help="sides of the images (default 256 600)")
    options = parser.parse_args()
    json_file = options.json.absolute() if options.json else None
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(header("torch", "torchvision", "pillow", "opencv-python-headless", "simplejpeg"))
    results = {}
    for px in options.px:
        with tempfile.TemporaryDirectory(prefix="gfm-loader-") as folder, contextlib.chdir(folder):
            images = options.images if px <= CEILING_PX else max(options.images // 4, 1)
            write_class_folders(Path("raw/photos"), images, px)
            collect(Path("raw"))
            print()
            found = ways(Path("raw"), px)
            run(found, options.rounds)
            results[px] = summary(found)
            print(table(f"{images} images of {px} px, crops of {CROP_PX} px", results[px]), flush=True)
    write_json(json_file, results)


if __name__ == "__main__":
    main()
