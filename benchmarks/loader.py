"""How fast random crops come: from the shards and from the cache of decoded images, against torchvision's ImageFolder.

    taskset -c 3 python benchmarks/loader.py [--images 2000] [--rounds 5] [--px 256 600] [--json OUT]

Every way gives batches of the same images in one process with one thread, in alternating rounds; rates are of processor
time, so that other work on the machine disturbs the ratios little. The reference decodes with PIL, cuts with
RandomResizedCrop, flips, and makes normalised floats; ours are bytes that the device flips and normalises, so the
reference without floats stands beside it.
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


def ours(interpolation: str, cache: DecodedCache | None) -> Iterable[Any]:
    """Training crops of the collection here, as a training without masks reads them."""
    rows = read_rows("train")
    crop = Crop.model_validate({"interpolation": interpolation})
    decoded = cache.of(rows) if cache else None
    dataset = CropDataset(rows, bands=3, px=CROP_PX, crop=crop, seed=0, decoded=decoded)
    return make_loader(dataset, FixedBatches(len(rows), batch_size=BATCH, epoch=0), workers=0)


def filled(px: int | None) -> DecodedCache:
    """The cache of decoded images, made."""
    cache = DecodedCache.of_collection(3, px, "pretrain.gfm")
    cache.fill(Processes(0, 1, 1), threads=1)
    return cache


def consume(loader: Iterable[Any]) -> int:
    """Read all batches; how many images they were."""
    return sum(len(batch[0]) for batch in loader)


def ways(raw: Path, px: int) -> list[Way]:
    """The reference first."""
    found = [
        Way("ImageFolder, PIL, RandomResizedCrop, floats", partial(consume, reference(raw / "photos", floats=True))),
        Way("the same, bytes", partial(consume, reference(raw / "photos", floats=False))),
        Way("shards", partial(consume, ours("antialiased", None)), aim=2.5),
        Way("shards, linear", partial(consume, ours("linear", None)), aim=2.5),
        Way("decoded_cache", partial(consume, ours("antialiased", filled(None))), aim=10),
        Way("decoded_cache, linear", partial(consume, ours("linear", filled(None))), aim=10),
    ]
    if px > CEILING_PX:
        small = filled(CEILING_PX)
        name = f"decoded_px: {CEILING_PX}"
        found.append(Way(name, partial(consume, ours("antialiased", small)), aim=10))
        found.append(Way(f"{name}, linear", partial(consume, ours("linear", small)), aim=10))
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
