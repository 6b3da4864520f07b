"""The sample's downstream data: scenes, buildings, change, and two sets for readers of other layouts.

Every picture is drawn from keys that no pretraining picture uses.
"""

from __future__ import annotations

import json
from functools import partial

import numpy as np

from gfm.sample import countryside, town
from gfm.sample.dice import Dice
from gfm.sample.encode import Grid, jpeg, png, tiff
from gfm.sample.landscape import Canvas, exposed
from gfm.sample.satellite import change_pair, land_cover, reduced, reflectance
from gfm.sample.sources import File, Job, SceneSet, Theme, picture

UC_MERCED = SceneSet(
    "UCMerced_LandUse",
    {
        "agricultural": countryside.farmland,
        "beach": countryside.beach,
        "denseresidential": town.dense_residential,
        "forest": countryside.forest,
        "harbor": town.harbor,
        "intersection": town.intersection,
        "river": countryside.river,
        "sparseresidential": town.sparse_residential,
    },
    images=30,
    file="UCMerced_LandUse/Images/{label}/{label}{number:02d}.tif",
    sides=(112,),
    scales=(12, 19),
    tone=(110, 112, 102, 140),
    blur=1,
    first=0,
)
LEAKED = (("harbor", 4, "harbor/harbor090.jpg"), ("intersection", 11, "intersection/intersection090.jpg"))

WHU_PARTS = (("train", 60), ("val", 20), ("test", 40))
WHU_SIDE = 128
_WHU_THEMES: tuple[Theme, ...] = (
    town.dense_residential,
    town.dense_residential,
    town.sparse_residential,
    town.industrial,
    town.industrial,
    town.intersection,
    town.parking_lot,
    countryside.farmland,
)

CITIES = ("vega", "altair", "deneb", "rigel", "spica", "mira", "capella", "antares")
CITY_BANDS = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B08": 10}  # metres a pixel
_CITY_SIDES = (168, 180, 192)

PATCHES = 24
PATCH_SIDE = 120
PATCH_BANDS = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B11": 20, "B12": 20,
}  # fmt: skip
_COUNTRIES = (("Finland", 32635), ("Serbia", 32634), ("Portugal", 32629), ("Austria", 32633))

SPACENET_PAIRS = 1
_SPACENET_SIDE = 650
_SPACENET_REDUCED = 162


def jobs() -> list[Job]:
    """Independent pieces of work that together write every downstream set."""
    work: list[Job] = [partial(uc_merced, label) for label in UC_MERCED.classes]
    work += [
        partial(whu, part, first, min(first + 10, count)) for part, count in WHU_PARTS for first in range(0, count, 10)
    ]
    work += [partial(city, name) for name in CITIES]
    work += [partial(patch, number) for number in range(PATCHES)]
    work += [partial(spacenet_pair, number) for number in range(1, SPACENET_PAIRS + 1)]
    return [*work, leaks]


def uc_merced(label: str) -> list[File]:
    files = []
    for number in range(UC_MERCED.first, UC_MERCED.first + UC_MERCED.images):
        image, _ = picture(UC_MERCED, UC_MERCED.classes[label], label, number)
        files.append((UC_MERCED.file.format(label=label, number=number), tiff(image)))
    return files


def leaks() -> list[File]:
    """Flipped, recompressed copies of UC Merced images inside a pretraining source."""
    files = []
    for label, number, name in LEAKED:
        image, _ = picture(UC_MERCED, UC_MERCED.classes[label], label, number)
        files.append((f"PatternNet/images/{name}", jpeg(image[:, ::-1], quality=90)))
    return files


def whu(part: str, first: int, end: int) -> list[File]:
    """Chips with masks of roofs; paved and ploughed ones without any building among them."""
    files = []
    for number in range(first, end):
        dice = Dice("WHU", part, number)
        canvas = Canvas(dice, WHU_SIDE, WHU_SIDE, dice.between(14, 22))
        dice.pick(_WHU_THEMES)(canvas)
        image = exposed(dice, canvas.finished(), (112, 112, 108, 140), mixing=2)[:, :, :3]
        files.append((f"WHU/{part}/images/{number + 1:04d}.tif", tiff(np.ascontiguousarray(image))))
        files.append((f"WHU/{part}/masks/{number + 1:04d}.png", png(canvas.roofs.astype(np.uint8) * 255)))
    return files


def city(name: str) -> list[File]:
    """Two Sentinel-2 dates of a city, one GeoTIFF a band, and where it was built or cleared in between."""
    dice = Dice("OSCD", name)
    number = CITIES.index(name)
    height, width = dice.pick(_CITY_SIDES), dice.pick(_CITY_SIDES)
    before, after, changed = change_pair(dice, height, width)
    dates = (f"2016{1 + number % 9:02d}12", f"2018{1 + (number * 5) % 9:02d}0{1 + number % 8}")
    zone = f"T{31 + number % 4}UD{'ABCDEFGH'[number]}"
    stems = (f"S2A_OPER_MSI_L1C_TL_EPA__{dates[0]}T103022_A00{number}162_{zone}", f"{zone}_{dates[1]}T103021")
    files = []
    for date, (pixels, stem) in enumerate(zip((before, after), stems, strict=True), start=1):
        for band, metres in CITY_BANDS.items():
            grid = Grid(32631 + number % 4, 400_020 + 20_040 * number, 5_400_000 + 30_000 * number, metres)
            stored = reduced(reflectance(pixels, band), metres // 10)
            files.append((f"OSCD/images/{name}/imgs_{date}/{stem}_{band}.tif", tiff(stored, grid)))
    files.append((f"OSCD/images/{name}/dates.txt", f"date_1: {dates[0]}\ndate_2: {dates[1]}\n".encode()))
    mask = changed.astype(np.uint8)
    files.append((f"OSCD/train_labels/{name}/cm/cm.png", png(mask * 255)))
    files.append((f"OSCD/train_labels/{name}/cm/{name}-cm.tif", tiff(mask + 1)))
    return files


def patch(number: int) -> list[File]:
    """A BigEarthNet v2 patch: one GeoTIFF a band and its labels."""
    dice = Dice("BigEarthNet-v2", number)
    canvas, labels = land_cover(dice, PATCH_SIDE, PATCH_SIDE)
    pixels = canvas.finished(1, 4)
    country, epsg = _COUNTRIES[number % len(_COUNTRIES)]
    west, north = 500_040 + 1_200 * number, 4_800_000 + 1_200 * number
    folder = f"BigEarthNet-v2/sample_{number}"
    files = [
        (
            f"{folder}/{band}.tif",
            tiff(reduced(reflectance(pixels, band), metres // 10), Grid(epsg, west, north, metres), nodata=0),
        )
        for band, metres in PATCH_BANDS.items()
    ]
    meta = {
        "tortilla:id": f"sample_{number}",
        "tortilla:data_split": ("train", "train", "validation", "test")[number // 4 % 4],
        "stac:crs": f"EPSG:{epsg}",
        "stac:geotransform": [float(west), 10.0, 0.0, float(north), 0.0, -10.0],
        "stac:raster_shape": [PATCH_SIDE, PATCH_SIDE],
        "country": country,
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": False,
        "labels": sorted(labels),
        "patch_id": f"S2A_MSIL2A_201706{1 + number:02d}T094031_N9999_R036_T35VNK_{number:02d}_28",
    }
    return [*files, (f"{folder}/meta.json", (json.dumps(meta) + "\n").encode())]


def spacenet_pair(number: int) -> list[File]:
    """Eight bands at a quarter of the resolution, and the pan-sharpened ones; 11 bits in uint16."""
    dice = Dice("SpaceNet2", number)
    side = _SPACENET_SIDE
    canvas = Canvas(dice, side, side, 32)
    town.dense_residential(canvas)
    pixels = canvas.finished()
    mix = (
        (0, 0, 9, 0),
        (0, 1, 8, 0),
        (0, 8, 1, 0),
        (4, 5, 0, 0),
        (9, 0, 0, 0),
        (5, 0, 0, 4),
        (0, 0, 0, 9),
        (1, 0, 0, 9),
    )
    sharp = np.stack([(pixels * np.asarray(row, np.int32)).sum(axis=2) * 7 // 9 + 60 for row in mix], axis=2)
    sharp = np.clip(sharp, 0, 2047).astype(np.uint16)
    step = side // _SPACENET_REDUCED
    inner = sharp[: step * _SPACENET_REDUCED, : step * _SPACENET_REDUCED].astype(np.int32)
    coarse = inner.reshape(_SPACENET_REDUCED, step, _SPACENET_REDUCED, step, len(mix)).sum(axis=(1, 3)) // (step * step)
    name = f"SN2_sample_img{number}.tif"
    west, north = 733_000 + 1_000 * number, 3_720_000
    return [
        (f"SpaceNet2/MUL/{name}", tiff(coarse.astype(np.uint16), Grid(32616, west, north, 2))),
        (f"SpaceNet2/PAN-MS/{name}", tiff(sharp, Grid(32616, west, north, 0.5))),
    ]
