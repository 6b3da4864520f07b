"""Kinds of open land. Each function paints one onto a canvas and returns the names of what can be seen on it."""

from __future__ import annotations

import numpy as np

from gfm.sample.landscape import (
    ASPHALT,
    CANOPY,
    CONCRETE,
    CROP,
    DRY,
    GRASS,
    MEADOW,
    MUD,
    OPEN_GROUND,
    PINE,
    SAND,
    SOIL,
    STUBBLE,
    WATER,
    Canvas,
    Colour,
    Mask,
    shaded,
)

Seen = set[str]

_GROUND_NAMES = {GRASS: "grass", MEADOW: "grass", DRY: "bare soil", SOIL: "bare soil"}


def ground(canvas: Canvas) -> Seen:
    """Uneven open ground of any colour: what most kinds of land stand on."""
    base = canvas.dice.pick(OPEN_GROUND)
    texture = canvas.noise(48, 20, 8, 3, 1)
    canvas.cover(canvas.jitter(base, 20), texture, canvas.dice.between(30, 70))
    return {_GROUND_NAMES.get(base, "bare soil")}


def scattered_trees(canvas: Canvas, share: int, where: Mask | None = None) -> Seen:
    """Single trees, `share` for each 10,000 pixels; only where the mask is true."""
    dice = canvas.dice
    leaf = canvas.jitter(dice.pick((CANOPY, PINE, GRASS)))
    for _ in range(canvas.height * canvas.width * share // 10_000):
        x, y = dice.below(canvas.width), dice.below(canvas.height)
        if where is None or where[y, x]:
            canvas.tree(x, y, dice.between(canvas.px(2), canvas.px(4)), canvas.jitter(leaf, 10))
    return {"trees"} if share else set()


def farmland(canvas: Canvas) -> Seen:
    """A patchwork of turned fields with drill rows, tracks between them."""
    dice = canvas.dice
    u, v = canvas.turned(dice.below(24))
    length, breadth = canvas.px(dice.between(36, 80)), canvas.px(dice.between(22, 48))
    column = (u + 4096) // length
    row = (v + 4096 + (column % 3) * breadth // 3) // breadth
    field = (column * 31 + row * 17) % 13
    rough = canvas.noise(24, 6, 2)
    canvas.cover(SOIL, rough, 30)
    for number in range(13):
        here = field == number
        crop = canvas.jitter(dice.pick((CROP, CROP, STUBBLE, SOIL, GRASS, DRY)), 18)
        canvas.paint(here, crop, rough, dice.between(14, 40))
        if dice.chance(75):
            period = max(3, canvas.px(dice.between(3, 6)))
            rows = here & ((u if dice.chance(50) else v) % period < period // 2)
            canvas.pixels[rows] = canvas.pixels[rows] * dice.between(12, 14) // 16
    edge = max(1, canvas.px(2) // 2)
    track = ((u + 4096) % length < edge) | ((v + 4096 + (column % 3) * breadth // 3) % breadth < edge)
    canvas.paint(track, canvas.jitter(STUBBLE), rough, 20)
    return {"field", "bare soil"} | (scattered_trees(canvas, dice.between(0, 3)) if dice.chance(40) else set())


def forest(canvas: Canvas) -> Seen:
    """A closed canopy: crowns packed so that their shaded sides touch, with a clearing now and then."""
    dice = canvas.dice
    leaf = canvas.jitter(dice.pick((CANOPY, PINE, GRASS)), 20)
    crowns = canvas.noise(6, 3, 2)
    stands = canvas.noise(60, 28)
    canvas.cover(leaf, stands, 40)
    canvas.pixels += (shaded(crowns) * dice.between(20, 34) // 32)[:, :, None]
    gaps = crowns < 92
    canvas.pixels[gaps] = canvas.pixels[gaps] * 11 // 16
    if dice.chance(45):
        clearing = canvas.noise(40, 12) > dice.between(160, 176)
        canvas.paint(clearing, canvas.jitter(dice.pick((MEADOW, SOIL))), crowns, 24)
    return {"trees"}


def river(canvas: Canvas) -> Seen:
    """A winding stream with banks through open ground or trees."""
    dice = canvas.dice
    seen = forest(canvas) if dice.chance(35) else ground(canvas) | scattered_trees(canvas, dice.between(4, 24))
    _, v = canvas.turned(dice.below(24))
    bend = canvas.noise(70, 40) - 128
    distance = np.abs(v + dice.between(-12, 12) + bend * canvas.px(dice.between(24, 52)) // 128)
    half = canvas.px(dice.between(5, 14))
    ripples = canvas.noise(12, 3)
    canvas.paint(distance < half + canvas.px(4), canvas.jitter(dice.pick((SAND, MUD, SOIL))), ripples, 30)
    canvas.paint(distance < half, canvas.jitter(dice.pick((WATER, WATER, MUD)), 18), ripples, 12)
    return seen | {"water"}


def beach(canvas: Canvas) -> Seen:
    """Sea with surf lines, sand, land behind."""
    dice = canvas.dice
    seen = ground(canvas) | scattered_trees(canvas, dice.between(2, 16))
    _, v = canvas.turned(dice.below(24))
    shore = v + (canvas.noise(60, 30, 10) - 128) * canvas.px(14) // 128 + dice.between(-16, 16)
    grain = canvas.noise(10, 3, 1)
    width = canvas.px(dice.between(12, 30))
    canvas.paint(shore > -width, canvas.jitter(SAND), grain, 18)
    sea = shore > 0
    canvas.paint(sea, canvas.jitter(WATER, 20), canvas.noise(30, 5, 2), 26)
    for start in (0, canvas.px(7), canvas.px(16)):
        surf = (shore > start) & (shore < start + canvas.px(3)) & (grain > 96)
        canvas.pixels[surf] += 90
    return seen | {"sand", "sea"}


def lake(canvas: Canvas) -> Seen:
    """Still water with an uneven shore."""
    dice = canvas.dice
    seen = ground(canvas) | scattered_trees(canvas, dice.between(6, 30))
    x, y = canvas.x - canvas.width // 2, canvas.y - canvas.height // 2
    reach = canvas.px(dice.between(34, 52)) + (canvas.noise(40, 18, 8) - 128) * canvas.px(26) // 128
    near = x * x + y * y * dice.between(10, 22) // 10 - reach * reach
    canvas.paint(
        (near < 0) | (near < reach * canvas.px(7)), canvas.jitter(dice.pick((MUD, SAND, DRY))), canvas.noise(6, 2), 22
    )
    canvas.paint(near < 0, canvas.jitter(WATER, 20), canvas.noise(24, 8), 10)
    return seen | {"water"}


def desert(canvas: Canvas) -> Seen:
    """Dunes: lit crests across the wind."""
    dice = canvas.dice
    colour = canvas.jitter(dice.pick((SAND, DRY, SOIL)), 20)
    _, v = canvas.turned(dice.below(24))
    period = canvas.px(dice.between(12, 26))
    phase = (v + 8192 + (canvas.noise(60, 26, 10) - 128) * canvas.px(30) // 128) % period
    rise = period * 3 // 4
    slope = np.where(phase < rise, phase * 255 // max(rise, 1), (period - phase) * 255 // max(period - rise, 1))
    canvas.cover(colour, slope, dice.between(30, 60))
    canvas.pixels += ((canvas.noise(4, 2) - 128) // 10)[:, :, None]
    return {"sand"}


def mountain(canvas: Canvas) -> Seen:
    """Ridges under a low sun."""
    dice = canvas.dice
    heights = canvas.noise(64, 36, 18, 9, 4)
    ridged = 255 - np.abs(heights - 128) * 2
    canvas.cover(canvas.jitter(dice.pick((DRY, SOIL, GRASS)), 18), heights, 40)
    canvas.pixels += (shaded(ridged) * dice.between(8, 13) // 4)[:, :, None]
    wooded = (heights < dice.between(96, 128)) & (canvas.noise(6, 2) > 112)
    canvas.paint(wooded, canvas.jitter(PINE), canvas.noise(3, 1), 24)
    return {"bare soil", "trees"}


def orchard(canvas: Canvas) -> Seen:
    """Trees planted in a grid."""
    dice = canvas.dice
    ground(canvas)
    direction = dice.below(24)
    u, v = canvas.turned(direction)
    step = max(5, canvas.px(dice.between(7, 11)))
    du, dv = u % step - step // 2, v % step - step // 2
    radius = step * dice.between(28, 40) // 100
    crown = du * du + dv * dv <= radius * radius + 1
    su, sv = (u + 2) % step - step // 2, (v - 2) % step - step // 2
    shadow = (su * su + sv * sv <= radius * radius + 1) & ~crown
    canvas.pixels[shadow] = canvas.pixels[shadow] * 10 // 16
    canvas.paint(crown, canvas.jitter(dice.pick((CANOPY, PINE, GRASS))), canvas.noise(4, 2, 1), 40)
    return {"trees", "field"}


def meadow(canvas: Canvas) -> Seen:
    """Open grass with bushes."""
    dice = canvas.dice
    seen = ground(canvas)
    return seen | scattered_trees(canvas, dice.between(8, 40)) | {"grass"}


def band(canvas: Canvas, across: np.ndarray, half: int, colour: Colour, dashed: np.ndarray | None = None) -> None:
    """A paved strip |across| < half with edge lines and, where `dashed` gives the way along it, a dashed middle."""
    grain = canvas.noise(6, 2)
    canvas.paint(np.abs(across) < half, colour, grain, 14)
    if half >= 5:
        line = np.abs(np.abs(across) - (half - 2)) < 1
        canvas.pixels[line] += 60
    if dashed is not None and half >= 3:
        middle = (np.abs(across) < 1) & (dashed % 10 < 5)
        canvas.pixels[middle] += 90


def road_colour(canvas: Canvas) -> Colour:
    return canvas.jitter(canvas.dice.pick((ASPHALT, ASPHALT, CONCRETE, SOIL)))
