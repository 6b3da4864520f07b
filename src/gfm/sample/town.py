"""Kinds of built land. Each function paints one onto a canvas and returns the names of what can be seen on it."""

from __future__ import annotations

from gfm.sample.countryside import Seen, band, ground, road_colour, scattered_trees
from gfm.sample.landscape import ASPHALT, CARS, CONCRETE, DIRECTIONS, ROOFS, SOIL, WATER, Canvas


def place(canvas: Canvas, u: int, v: int, direction: int) -> tuple[int, int]:
    """Turned coordinates from the centre as pixel column and row."""
    cos, sin = DIRECTIONS[direction % 24]
    return canvas.width // 2 + (u * cos - v * sin) // 256, canvas.height // 2 + (u * sin + v * cos) // 256


def car(canvas: Canvas, u: int, v: int, direction: int, turned: bool = False) -> None:
    x, y = place(canvas, u, v, direction)
    if not canvas.sees(x, y, canvas.px(5)):
        return
    along, across = max(1, canvas.px(5) // 2), max(1, canvas.px(2) // 2)
    if turned:
        along, across = across, along
    canvas.shade(x, y, along, across, direction, 1)
    canvas.rectangle(x, y, along, across, direction, canvas.jitter(canvas.dice.pick(CARS), 8))


def _houses(canvas: Canvas, plot: int, street_every: int, filled: int, trees: int) -> Seen:
    """Streets with houses on plots of `plot` metres, `filled` percent of them built."""
    dice = canvas.dice
    seen = ground(canvas)
    direction = dice.below(24)
    u, v = canvas.turned(direction)
    block = canvas.px(street_every)
    shift = dice.below(block)
    street = canvas.px(dice.between(3, 4))
    seen |= scattered_trees(canvas, trees)
    colour = road_colour(canvas)
    band(canvas, (v + 4096 + shift) % block - block // 2, street, colour, u)
    if dice.chance(60):
        band(canvas, u - dice.between(-20, 20), street, colour, v)
    step, reach = canvas.px(plot), canvas.height * 3 // 4
    main = dice.pick(ROOFS)
    first = block // 2 - (4096 + shift) % block
    for line in range(first - (reach // block + 1) * block, reach, block):
        for side in (-1, 1):
            row = line + side * (street + canvas.px(plot) // 2 + 1)
            for along in range(-reach, reach, step):
                if not dice.chance(filled):
                    continue
                a, b = (
                    canvas.px(dice.between(5, max(5, plot * 2 // 5))),
                    canvas.px(dice.between(4, max(4, plot * 3 // 8))),
                )
                x, y = place(canvas, along + dice.between(-1, 1), row + dice.between(-1, 1), direction)
                roof = canvas.jitter(main if dice.chance(60) else dice.pick(ROOFS))
                canvas.building(x, y, a, b, direction, roof, canvas.px(3))
    return seen | {"buildings", "roads"}


def dense_residential(canvas: Canvas) -> Seen:
    return _houses(
        canvas, plot=canvas.dice.between(13, 16), street_every=canvas.dice.between(40, 48), filled=94, trees=14
    )


def sparse_residential(canvas: Canvas) -> Seen:
    return _houses(
        canvas, plot=canvas.dice.between(26, 36), street_every=canvas.dice.between(84, 110), filled=48, trees=42
    )


def industrial(canvas: Canvas) -> Seen:
    """Large flat halls on paved yards."""
    dice = canvas.dice
    direction = dice.below(24)
    canvas.cover(canvas.jitter(dice.pick((ASPHALT, CONCRETE, SOIL))), canvas.noise(30, 10, 3), 34)
    step = canvas.px(dice.between(46, 58))
    reach = canvas.height * 3 // 4
    for u in range(-reach, reach, step):
        for v in range(-reach, reach, step):
            if dice.chance(16):
                continue
            x, y = place(canvas, u + dice.between(-3, 3), v + dice.between(-3, 3), direction)
            a, b = canvas.px(dice.between(13, 22)), canvas.px(dice.between(10, 20))
            canvas.building(x, y, a, b, direction, canvas.jitter(dice.pick(ROOFS)), canvas.px(5))
            for _ in range(dice.between(0, 4)):
                roof_x, roof_y = x + dice.between(-a // 2, a // 2), y + dice.between(-b // 2, b // 2)
                canvas.rectangle(roof_x, roof_y, canvas.px(2), canvas.px(2), direction, canvas.jitter(CONCRETE))
    return {"buildings", "pavement"} | scattered_trees(canvas, dice.between(0, 4))


def parking_lot(canvas: Canvas) -> Seen:
    """Rows of parked cars on asphalt, aisles between them."""
    dice = canvas.dice
    canvas.cover(canvas.jitter(dice.pick((ASPHALT, ASPHALT, CONCRETE)), 18), canvas.noise(30, 8, 2), 26)
    direction = dice.below(24)
    full = dice.between(45, 95)
    bay, depth = max(4, canvas.px(4)), max(6, canvas.px(7))
    aisle = depth + canvas.px(7)
    reach = canvas.height * 3 // 4
    u, v = canvas.turned(direction)
    lines = (u % bay == 0) & (v % aisle < depth)
    canvas.pixels[lines] += 46
    for row in range(-(reach // aisle) * aisle, reach, aisle):
        for bay_at in range(-(reach // bay) * bay, reach, bay):
            if dice.chance(full):
                car(canvas, bay_at + bay // 2, row + depth // 2, direction, turned=True)
    return {"cars", "pavement"} | (scattered_trees(canvas, 4) if dice.chance(30) else set())


def _with_traffic(canvas: Canvas, direction: int, half: int, offset: int, share: int) -> None:
    reach = canvas.height * 3 // 4
    for lane in (-half // 2, half // 2):
        for along in range(-reach, reach, canvas.px(9)):
            if canvas.dice.chance(share):
                car(canvas, along, offset + lane, direction)


def freeway(canvas: Canvas) -> Seen:
    """Two parallel carriageways with traffic."""
    dice = canvas.dice
    seen = ground(canvas) | scattered_trees(canvas, dice.between(2, 24))
    direction = dice.below(24)
    u, v = canvas.turned(direction)
    half, gap = canvas.px(dice.between(7, 10)), canvas.px(dice.between(2, 7))
    colour = road_colour(canvas)
    middle = dice.between(-14, 14)
    for side in (-1, 1):
        offset = middle + side * (half + gap)
        band(canvas, v - offset, half, colour, u)
        _with_traffic(canvas, direction, half, offset, dice.between(8, 34))
    return seen | {"roads", "cars"}


def intersection(canvas: Canvas) -> Seen:
    """Two streets crossing, houses in the quarters."""
    dice = canvas.dice
    seen = ground(canvas) | scattered_trees(canvas, dice.between(6, 24))
    direction = dice.below(24)
    colour = road_colour(canvas)
    half = canvas.px(dice.between(6, 9))
    for quarter in range(4):
        if dice.chance(70):
            su, sv = ((1, 1), (1, -1), (-1, 1), (-1, -1))[quarter]
            x, y = place(canvas, su * (half + canvas.px(24)), sv * (half + canvas.px(20)), direction)
            a, b = canvas.px(dice.between(9, 16)), canvas.px(dice.between(7, 13))
            canvas.building(x, y, a, b, direction, canvas.jitter(dice.pick(ROOFS)), canvas.px(4))
            seen |= {"buildings"}
    for turn in (0, 6):
        u, v = canvas.turned(direction + turn)
        band(canvas, v, half, colour, u)
    u, v = canvas.turned(direction)
    crossing = ((abs(abs(u) - half - 3) < 2) & (abs(v) < half) & (v % 4 < 2)) | (
        (abs(abs(v) - half - 3) < 2) & (abs(u) < half) & (u % 4 < 2)
    )
    canvas.pixels[crossing] += 80
    for turn in (0, 6):
        _with_traffic(canvas, direction + turn, half, 0, dice.between(10, 30))
    return seen | {"roads", "cars"}


def runway(canvas: Canvas) -> Seen:
    """A runway with its markings and a taxiway."""
    dice = canvas.dice
    seen = ground(canvas)
    direction = dice.below(24)
    u, v = canvas.turned(direction)
    colour = canvas.jitter(dice.pick((ASPHALT, CONCRETE)))
    half = canvas.px(dice.between(14, 20))
    across = v - dice.between(-20, 20)
    band(canvas, across, half, colour)
    canvas.pixels[(abs(across) < 2) & (u % 24 < 14)] += 90
    bars = (abs(u - dice.between(-40, 40)) < canvas.px(8)) & (abs(across) < half - 4) & (across % 6 < 3)
    canvas.pixels[bars] += 80
    band(canvas, across - half - canvas.px(dice.between(16, 26)), canvas.px(5), colour)
    return seen | {"pavement"}


def harbor(canvas: Canvas) -> Seen:
    """Boats moored along piers, a quay."""
    dice = canvas.dice
    canvas.cover(canvas.jitter(WATER, 22), canvas.noise(30, 8, 3), 20)
    direction = dice.below(24)
    _, v = canvas.turned(direction)
    quay = canvas.px(dice.between(26, 44))
    pier, slot = canvas.px(dice.between(24, 30)), canvas.px(dice.between(5, 7))
    reach = canvas.height * 3 // 4
    u, _ = canvas.turned(direction)
    canvas.paint((u % pier < canvas.px(3)) & (v < quay), canvas.jitter(CONCRETE), canvas.noise(4, 2), 12)
    for line in range(-(reach // pier) * pier, reach, pier):
        for side in (-1, 1):
            for along in range(-reach, quay - canvas.px(6), slot):
                if dice.chance(78):
                    x, y = place(canvas, line + canvas.px(1) + side * canvas.px(7), along, direction)
                    hull = canvas.jitter((208, 206, 202, 160) if dice.chance(70) else dice.pick(CARS), 16)
                    canvas.rectangle(x, y, canvas.px(dice.between(4, 6)), max(1, canvas.px(1)), direction, hull)
    canvas.paint(v > quay, canvas.jitter(dice.pick((CONCRETE, ASPHALT))), canvas.noise(10, 3), 20)
    return {"ship", "water", "dock"}


def storage_tanks(canvas: Canvas) -> Seen:
    """Round tanks in rows inside bunds."""
    dice = canvas.dice
    seen = ground(canvas)
    direction = dice.below(24)
    radius = canvas.px(dice.between(8, 14))
    step = radius * dice.between(26, 32) // 10
    reach = canvas.height * 3 // 4
    metal = canvas.jitter(dice.pick(((198, 198, 196, 170), (170, 166, 158, 140), (120, 126, 120, 110))))
    for u in range(-reach, reach, step):
        for v in range(-reach, reach, step):
            if dice.chance(72):
                x, y = place(canvas, u + dice.between(-2, 2), v + dice.between(-2, 2), direction)
                size = radius * dice.between(7, 10) // 10
                sx, sy = canvas.sun
                canvas.disc(x + sx * 3, y + sy * 3, size, (46, 46, 48, 40))
                canvas.disc(x, y, size, canvas.jitter(metal, 10), rim=22)
    return seen | {"tanks"}
