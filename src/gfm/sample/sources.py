"""The sample's pretraining imagery: aerial scenes and four sets of images in class folders.

Three files are deliberately unusable, and two copies of downstream images are hidden among them, so that the
quarantine and the leakage guard have something to show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gfm.sample import countryside, town
from gfm.sample.countryside import Seen
from gfm.sample.dice import Dice, Ints
from gfm.sample.encode import Grid, jpeg, tiff
from gfm.sample.landscape import ASPHALT, SAND, SOIL, WATER, Canvas, Colour, Image, exposed, value_noise

Theme = Callable[[Canvas], Seen]
File = tuple[str, bytes]  # path in the sample folder, content
Job = Callable[[], list[File]]

LABELS = (
    "bare soil", "buildings", "cars", "dock", "field", "grass", "pavement", "roads",
    "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SceneSet:
    """One set of images in class folders: its look, its sizes and how it names files."""

    name: str
    classes: dict[str, Theme]
    images: int  # of each class
    file: str  # path of an image, from {label} and {number}
    sides: tuple[int, ...]  # pixels
    scales: tuple[int, int]  # pixels per 16 m, from - to
    tone: Colour
    blur: int
    first: int = 1  # number of a class's first image


RSD46_WHU = SceneSet(
    "RSD46-WHU",
    {
        "Airport runway": town.runway,
        "Artificial sparse forest land": countryside.orchard,
        "Dense tall building": town.industrial,
        "Dock": town.harbor,
        "Natural dense forest land": countryside.forest,
        "Oiltank": town.storage_tanks,
        "Regular farmland": countryside.farmland,
        "Sparse residential area": town.sparse_residential,
    },
    images=30,
    file="RSD46-WHU/train/{label}/{label}_{number:04d}.jpg",
    sides=(120, 136, 152),
    scales=(12, 18),
    tone=(108, 116, 104, 140),
    blur=1,
)
MLRSNET = SceneSet(
    "MLRSNet",
    {
        "beach": countryside.beach,
        "dense_residential_area": town.dense_residential,
        "desert": countryside.desert,
        "freeway": town.freeway,
        "lake": countryside.lake,
        "meadow": countryside.meadow,
        "mountain": countryside.mountain,
        "parking_lot": town.parking_lot,
    },
    images=26,
    file="MLRSNet/Images/{label}/{label}_{number:05d}.jpg",
    sides=(128,),
    scales=(11, 20),
    tone=(118, 114, 98, 140),
    blur=1,
)
RESISC45 = SceneSet(
    "NWPU-RESISC45",
    {
        "beach": countryside.beach,
        "dense_residential": town.dense_residential,
        "forest": countryside.forest,
        "freeway": town.freeway,
        "intersection": town.intersection,
        "lake": countryside.lake,
        "rectangular_farmland": countryside.farmland,
        "river": countryside.river,
    },
    images=30,
    file="NWPU-RESISC45/{label}/{label}_{number:03d}.jpg",
    sides=(128,),
    scales=(11, 19),
    tone=(102, 106, 92, 140),
    blur=1,
)
PATTERNNET = SceneSet(
    "PatternNet",
    {
        "christmas_tree_farm": countryside.orchard,
        "harbor": town.harbor,
        "intersection": town.intersection,
        "parking_lot": town.parking_lot,
        "river": countryside.river,
        "runway": town.runway,
        "sparse_residential": town.sparse_residential,
        "storage_tank": town.storage_tanks,
    },
    images=24,
    file="PatternNet/images/{label}/{label}{number:03d}.jpg",
    sides=(112,),
    scales=(14, 20),
    tone=(114, 116, 110, 140),
    blur=1,
)
SCENE_SETS = (RSD46_WHU, MLRSNET, RESISC45, PATTERNNET)

NAIP_SIDE = 640
NAIP_SCENES = (  # quarter quad, date, UTM zone 14 easting and northing of its corner
    ("4709963_se", "20140712", 485_000, 5_209_000),
    ("4709963_se", "20170923", 485_000, 5_209_000),
    ("4709964_nw", "20150801", 493_500, 5_214_200),
    ("4709971_ne", "20160718", 478_300, 5_196_800),
)


def jobs() -> list[Job]:
    """Independent pieces of work that together write every pretraining source."""
    work: list[Job] = [partial(naip_scene, *scene) for scene in NAIP_SCENES]
    for scenes in SCENE_SETS:
        work += [partial(class_folder, scenes, label) for label in scenes.classes]
    return [*work, defects]


def picture(scenes: SceneSet, theme: Theme, *key: str | int) -> tuple[Image, Seen]:
    """One drawn image (H,W,3) as delivered by the set's provider, and what can be seen on it."""
    dice = Dice(scenes.name, *key)
    side = dice.pick(scenes.sides)
    canvas = Canvas(dice, side, side, dice.between(*scenes.scales))
    seen = theme(canvas)
    return exposed(dice, canvas.finished(scenes.blur), scenes.tone)[:, :, :3], seen


def class_folder(scenes: SceneSet, label: str) -> list[File]:
    """The images of one class; for MLRSNet also the class's table of labels."""
    files, rows = [], []
    for number in range(scenes.first, scenes.first + scenes.images):
        image, seen = picture(scenes, scenes.classes[label], label, number)
        path = scenes.file.format(label=label, number=number)
        files.append((path, jpeg(image)))
        rows.append([path.rsplit("/", 1)[1], *(str(int(name in seen)) for name in LABELS)])
    if scenes.name == MLRSNET.name:
        table = "".join(",".join(row) + "\n" for row in [["image", *LABELS], *rows])
        files.append((f"MLRSNet/Labels/{label}.csv", table.encode()))
    return files


def defects() -> list[File]:
    """Files as they lie about in real downloads: cut off, empty, of another band count."""
    whole, _ = picture(MLRSNET, countryside.lake, "cut off")
    grey, _ = picture(RSD46_WHU, countryside.forest, "grey")
    cut = jpeg(whole)
    return [
        ("MLRSNet/Images/lake/lake_00099.jpg", cut[: len(cut) * 2 // 5]),
        ("PatternNet/images/river/river099.jpg", b""),
        ("RSD46-WHU/train/Natural dense forest land/Natural dense forest land_0099.jpg", jpeg(grey[:, :, 1:2])),
    ]


def naip_scene(quad: str, date: str, west_m: int, north_m: int) -> list[File]:
    """A quarter of a quad in four bands: the land depends on the quad, season and traffic on the date."""
    dice = Dice("naip", quad)
    side = NAIP_SIDE
    land = Canvas(dice, side, side, 16)
    countryside.farmland(land)
    for theme in (
        countryside.forest,
        countryside.meadow,
        town.dense_residential,
        countryside.forest,
        town.sparse_residential,
    ):
        other = Canvas(dice, side, side, 16)
        theme(other)
        blob = value_noise(dice, side, side, 150) * 3 + value_noise(dice, side, side, 40)
        here = blob > 4 * dice.between(146, 158)
        land.pixels[here] = other.pixels[here]
    _, v = land.turned(dice.below(24))
    stream = np.abs(v + dice.between(-150, 150) + (land.noise(260, 120) - 128) * 120 // 128)
    land.paint(stream < 14, land.jitter(SAND), land.noise(12, 3), 30)
    land.paint(stream < 10, land.jitter(WATER), land.noise(12, 3), 12)
    road = dice.below(24)
    along, across = land.turned(road)
    countryside.band(land, across - dice.between(-200, 200), 6, land.jitter(ASPHALT), along)
    countryside.band(land, along - dice.between(-200, 200), 5, land.jitter(SOIL), across)
    today = Dice("naip", quad, date)
    pixels = seasoned(land.finished(), today.between(0, 40))
    image = exposed(today, pixels, (112, 112, 96, 140), mixing=2)
    image = np.maximum(image, 1)
    if date == "20160718":  # the flight ended here: a corner without measurements
        image[land.x + 2 * land.y > 5 * side // 2] = 0
    path = f"naip/m_{quad}_14_1_{date}.tif"
    return [(path, tiff(image, Grid(26914, west_m, north_m, 1), nodata=0))]


def seasoned(pixels: Ints, dryness: int) -> Ints:
    """The same land later in the year: vegetation (near infrared above red) yellows by dryness/128."""
    green = np.clip(pixels[:, :, 3] - pixels[:, :, 0], 0, 255)
    change = np.stack([green * 3, green * 2, green // 2, -green * 3], axis=2)
    result: Ints = pixels + change * dryness // (128 * 4)
    return result
