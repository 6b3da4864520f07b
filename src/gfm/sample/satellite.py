"""Land at 10 m a pixel as Sentinel-2 sees it: covers with labels, and a city before and after it grew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gfm.sample import countryside
from gfm.sample.dice import Dice, Ints
from gfm.sample.landscape import (
    ASPHALT,
    CANOPY,
    CLAY,
    CONCRETE,
    MEADOW,
    PINE,
    ROOFS,
    SOIL,
    WATER,
    Canvas,
    Mask,
    fractal,
    value_noise,
)
from gfm.sample.sources import seasoned

Stored = npt.NDArray[np.uint16]

# How much of R, G, B and near infrared (of 8) each Sentinel-2 band is made of.
_BAND_MIX = {
    "B01": (0, 1, 7, 0), "B02": (0, 0, 8, 0), "B03": (0, 8, 0, 0), "B04": (8, 0, 0, 0), "B05": (5, 1, 0, 2),
    "B06": (2, 0, 0, 6), "B07": (1, 0, 0, 7), "B08": (0, 0, 0, 8), "B8A": (0, 0, 0, 8), "B09": (0, 0, 2, 5),
    "B11": (6, 0, 0, 1), "B12": (6, 0, 0, 0),
}  # fmt: skip


def reflectance(pixels: Ints, band: str) -> Stored:
    """One band as delivered: top-of-atmosphere reflectance times 10,000, from 8-bit-like (H,W,4)."""
    mixed = (np.clip(pixels, 0, 290) * np.asarray(_BAND_MIX[band], np.int32)).sum(axis=2)
    stored: Stored = (mixed * 12 // 8 + 260).astype(np.uint16)
    return stored


def reduced(image: Stored, factor: int) -> Stored:
    """Means over blocks of factor x factor pixels."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: rows * factor, : columns * factor].astype(np.int64).reshape(rows, factor, columns, factor)
    means: Stored = (blocks.sum(axis=(1, 3)) // (factor * factor)).astype(np.uint16)
    return means


def land_cover(dice: Dice, height: int, width: int) -> tuple[Canvas, set[str]]:
    """Land with one to four kinds of cover, and their BigEarthNet names."""
    canvas = Canvas(dice, height, width, 16)
    labels = set()
    if dice.chance(60):
        _fields(canvas)
        labels.add("Arable land")
    else:
        canvas.cover(canvas.jitter(MEADOW), canvas.noise(40, 16, 5, 2), 40)
        labels.add("Pastures")
    if dice.chance(55):
        _woods(canvas)
        labels.add("Coniferous forest")
    if dice.chance(40):
        _urban(canvas, value_noise(dice, height, width, 40) > 150)
        labels.add("Urban fabric")
    if dice.chance(35):
        _water(canvas)
        labels.add("Inland waters")
    return canvas, labels


def change_pair(dice: Dice, height: int, width: int) -> tuple[Ints, Ints, Mask]:
    """A city (H,W,4) at two dates, and where it changed; season, haze and traffic differ everywhere."""
    canvas = Canvas(dice, height, width, 16)
    _fields(canvas)
    _woods(canvas)
    centre = (canvas.x - width // 2) ** 2 + (canvas.y - height // 2) ** 2
    town = (fractal(dice, height, width, (50, 20)) * 40 - centre) > dice.between(500, 2200)
    _urban(canvas, town)
    if dice.chance(60):
        _water(canvas)
    for _ in range(2):
        along, across = canvas.turned(dice.below(24))
        canvas.paint(np.abs(across - dice.between(-40, 40)) < 2, canvas.jitter(ASPHALT), along & 255, 6)
    before = canvas.pixels.copy()
    changed = _growth(canvas)
    after = canvas.pixels
    dryness = (dice.between(0, 50), dice.between(0, 50))
    dates = []
    for pixels, dry in zip((before, after), dryness, strict=True):
        canvas.pixels = seasoned(pixels, dry)
        light = dice.between(108, 140)
        dates.append(canvas.finished(1, 5) * light // 128 + dice.between(0, 12))
    return dates[0], dates[1], changed


def _fields(canvas: Canvas) -> None:
    canvas.scale = 8  # fields of 100 to 400 m at 10 m a pixel
    countryside.farmland(canvas)
    canvas.scale = 16


def _woods(canvas: Canvas) -> None:
    here = canvas.noise(44, 18, 6) > canvas.dice.between(140, 156)
    canvas.paint(here, canvas.jitter(canvas.dice.pick((CANOPY, PINE))), canvas.noise(3, 2, 1), 50)


def _water(canvas: Canvas) -> None:
    _, across = canvas.turned(canvas.dice.below(24))
    bend = (canvas.noise(80, 40) - 128) * 40 // 128
    here = np.abs(across + bend + canvas.dice.between(-30, 30)) < canvas.dice.between(3, 8)
    canvas.paint(here, canvas.jitter(WATER, 16), canvas.noise(12, 4), 10)


def _urban(canvas: Canvas, where: Mask) -> None:
    """Blocks of roofs of one to three pixels between streets."""
    dice = canvas.dice
    u, v = canvas.turned(dice.below(24))
    roofs = (
        dice.grid(canvas.height // 2 + 1, canvas.width // 2 + 1)
        .repeat(2, 0)
        .repeat(2, 1)[: canvas.height, : canvas.width]
    )
    canvas.paint(where, canvas.jitter(CONCRETE, 10), roofs, 60)
    for number, roof in enumerate(ROOFS[:4]):
        canvas.paint(where & (roofs % 11 == number), roof)
    streets = where & ((u % 12 < 2) | (v % 16 < 2))
    canvas.paint(streets, canvas.jitter(ASPHALT))


def _growth(canvas: Canvas) -> Mask:
    """New estates, halls, roads and clearings painted onto the canvas; true where they are."""
    dice = canvas.dice
    changed = np.zeros((canvas.height, canvas.width), np.bool_)
    for _ in range(dice.between(5, 8)):
        cx, cy = dice.between(16, canvas.width - 16), dice.between(16, canvas.height - 16)
        direction = dice.below(24)
        along, across = dice.between(6, 13), dice.between(5, 10)
        rows, columns, u, v, inside = canvas.box(cx, cy, along, across, direction)
        window = canvas.pixels[rows, columns]
        kind = dice.below(3)
        grain = dice.grid(*inside.shape)
        if kind == 0:  # an estate: roofs on bare soil
            window[inside] = canvas.jitter(CLAY)
            houses = inside & (u % 4 < 2) & (v % 4 < 3)
            window[houses] = canvas.jitter(dice.pick(ROOFS))
        elif kind == 1:  # a hall
            window[inside] = canvas.jitter(CONCRETE)
            hall = inside & (np.abs(u) < along - 1) & (np.abs(v) < across - 1)
            window[hall] = canvas.jitter(dice.pick((ROOFS[2], ROOFS[5], ROOFS[4])))
        else:  # ground cleared for building
            window[inside] = (
                np.asarray(canvas.jitter((186, 158, 128, 150)), np.int32) + ((grain - 128) // 8)[inside][:, None]
            )
        changed[rows, columns] |= inside
    if dice.chance(60):
        u, v = canvas.turned(dice.below(24))
        road = (np.abs(v - dice.between(-40, 40)) < 2) & (np.abs(u) < dice.between(30, 60))
        canvas.paint(road, canvas.jitter(SOIL))
        changed |= road
    return changed
