"""Drawing with integers: value noise, and a canvas of red, green, blue and near infrared to paint land on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gfm.sample.dice import Dice, Ints

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int, int]  # R, G, B, near infrared, 0-255

# 256 * (cos, sin) of multiples of 15 degrees; a table, because sin() differs between processors.
_QUARTER = ((256, 0), (247, 66), (222, 128), (181, 181), (128, 222), (66, 247))
DIRECTIONS: tuple[tuple[int, int], ...] = (
    *_QUARTER,
    *((-s, c) for c, s in _QUARTER),
    *((-c, -s) for c, s in _QUARTER),
    *((s, -c) for c, s in _QUARTER),
)

GRASS: Colour = (96, 118, 70, 190)
MEADOW: Colour = (124, 136, 80, 185)
DRY: Colour = (150, 138, 100, 140)
SOIL: Colour = (134, 110, 86, 110)
CLAY: Colour = (156, 116, 88, 120)
SAND: Colour = (190, 172, 138, 160)
CROP: Colour = (80, 122, 62, 215)
STUBBLE: Colour = (170, 156, 110, 150)
CANOPY: Colour = (58, 84, 50, 180)
PINE: Colour = (46, 66, 50, 150)
WATER: Colour = (52, 74, 84, 24)
MUD: Colour = (104, 104, 84, 50)
ASPHALT: Colour = (96, 96, 98, 70)
CONCRETE: Colour = (164, 162, 156, 130)
ROOFS: tuple[Colour, ...] = (
    (162, 98, 78, 120),
    (128, 84, 72, 105),
    (176, 172, 166, 150),
    (106, 106, 112, 85),
    (88, 108, 138, 100),
    (200, 196, 190, 170),
    (142, 130, 112, 120),
)
CARS: tuple[Colour, ...] = (
    (210, 210, 210, 180),
    (40, 42, 48, 40),
    (130, 40, 38, 60),
    (58, 78, 124, 70),
    (150, 152, 156, 130),
)
OPEN_GROUND = (GRASS, MEADOW, DRY, SOIL, CLAY)


def value_noise(dice: Dice, height: int, width: int, cell: int) -> Ints:
    """One octave: random values on a lattice of `cell` pixels, interpolated linearly; 0-255."""
    if cell <= 1:
        return dice.grid(height, width)
    lattice = dice.grid(height // cell + 2, width // cell + 2)
    row, along = np.divmod(np.arange(height, dtype=np.int32), np.int32(cell))
    tall = lattice[row] * (cell - along)[:, None] + lattice[row + 1] * along[:, None]
    column, across = np.divmod(np.arange(width, dtype=np.int32), np.int32(cell))
    wide: Ints = (tall[:, column] * (cell - across) + tall[:, column + 1] * across) // (cell * cell)
    return wide


def fractal(dice: Dice, height: int, width: int, cells: Sequence[int]) -> Ints:
    """Octaves of value noise, each next one at half the weight; 0-255."""
    total = np.zeros((height, width), np.int32)
    weight = 1 << len(cells)
    weights = 0
    for cell in cells:
        weight //= 2
        total += value_noise(dice, height, width, cell) * weight
        weights += weight
    total //= weights
    return total


def shaded(heights: Ints) -> Ints:
    """Light from the upper left on a height map: differences along the diagonal, about -255 to 255."""
    light = np.zeros_like(heights)
    light[1:, 1:] = heights[1:, 1:] - heights[:-1, :-1]
    light[0, 1:] = light[1, 1:]
    light[:, 0] = light[:, 1]
    return light


def blurred(pixels: Ints) -> Ints:
    """Binomial 3x3 blur over the first two axes: the sensor's point spread."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    result: Ints = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) // 16
    return result


class Canvas:
    """A picture being drawn: `pixels` (H,W,4) int32, and `roofs` (H,W), true where a building's roof lies.

    `scale` is pixels per 16 m, so that sources of different resolution draw the same world.
    """

    def __init__(self, dice: Dice, height: int, width: int, scale: int = 16) -> None:
        self.dice = dice
        self.height = height
        self.width = width
        self.scale = scale
        self.pixels = np.zeros((height, width, 4), np.int32)
        self.roofs = np.zeros((height, width), np.bool_)
        self.x: Ints = np.broadcast_to(np.arange(width, dtype=np.int32)[None, :], (height, width))
        self.y: Ints = np.broadcast_to(np.arange(height, dtype=np.int32)[:, None], (height, width))
        self.sun = dice.pick(((2, 2), (2, 1), (1, 2), (-2, 2), (-1, 2)))  # where shadows fall

    def px(self, metres: int) -> int:
        """Metres as pixels, at least one."""
        return max(1, metres * self.scale // 16)

    def noise(self, *metres: int) -> Ints:
        return fractal(self.dice, self.height, self.width, [self.px(size) for size in metres])

    def jitter(self, colour: Colour, spread: int = 14) -> Colour:
        """A colour near this one."""
        light = self.dice.between(-spread, spread)
        r, g, b, n = (max(0, min(255, v + light + self.dice.between(-spread // 2, spread // 2))) for v in colour)
        return r, g, b, n

    def turned(self, direction: int) -> tuple[Ints, Ints]:
        """Coordinates along and across a direction (index of DIRECTIONS), from the picture's centre."""
        cos, sin = DIRECTIONS[direction % len(DIRECTIONS)]
        x, y = self.x - self.width // 2, self.y - self.height // 2
        return (x * cos + y * sin) // 256, (y * cos - x * sin) // 256

    def cover(self, colour: Colour, texture: Ints, strength: int) -> None:
        """Paint everything: colour plus texture (0-255, centred) times strength/128."""
        grain = ((texture - 128) * strength) // 128
        self.pixels[:] = np.asarray(colour, np.int32) + grain[:, :, None]

    def paint(self, mask: Mask, colour: Colour, texture: Ints | None = None, strength: int = 0) -> None:
        """Paint where the mask is true."""
        value = np.broadcast_to(np.asarray(colour, np.int32), (*mask.shape, 4))[mask]
        if texture is not None:
            value = value + (((texture - 128) * strength) // 128)[mask][:, None]
        self.pixels[mask] = value

    def sees(self, cx: int, cy: int, reach: int) -> bool:
        """Whether anything within `reach` of the point can fall into the picture."""
        return -reach <= cx < self.width + reach and -reach <= cy < self.height + reach

    def box(
        self, cx: int, cy: int, along: int, across: int, direction: int = 0
    ) -> tuple[slice, slice, Ints, Ints, Mask]:
        """A turned rectangle of half sides along/across: its window, its own coordinates there, and its mask."""
        cos, sin = DIRECTIONS[direction % len(DIRECTIONS)]
        reach_x = (along * abs(cos) + across * abs(sin)) // 256 + 1
        reach_y = (along * abs(sin) + across * abs(cos)) // 256 + 1
        x0, x1 = max(0, cx - reach_x), max(0, min(self.width, cx + reach_x + 1))
        y0, y1 = max(0, cy - reach_y), max(0, min(self.height, cy + reach_y + 1))
        dx = np.arange(x0, max(x0, x1), dtype=np.int32)[None, :] - cx
        dy = np.arange(y0, max(y0, y1), dtype=np.int32)[:, None] - cy
        u = (dx * cos + dy * sin) // 256
        v = (dy * cos - dx * sin) // 256
        inside: Mask = (np.abs(u) <= along) & (np.abs(v) <= across)
        return slice(y0, max(y0, y1)), slice(x0, max(x0, x1)), u, v, inside

    def rectangle(self, cx: int, cy: int, along: int, across: int, direction: int, colour: Colour) -> None:
        if not self.sees(cx, cy, along + across):
            return
        rows, columns, _, _, inside = self.box(cx, cy, along, across, direction)
        self.pixels[rows, columns][inside] = colour

    def shade(self, cx: int, cy: int, along: int, across: int, direction: int, length: int) -> None:
        """The shadow of a block: darkens what lies beside it away from the sun."""
        if not self.sees(cx, cy, 2 * (along + across + length)):
            return
        sx, sy = self.sun
        rows, columns, _, _, inside = self.box(cx + sx * length // 2, cy + sy * length // 2, along, across, direction)
        window = self.pixels[rows, columns]
        window[inside] = window[inside] * 9 // 20

    def building(
        self, cx: int, cy: int, along: int, across: int, direction: int, colour: Colour, height: int = 2
    ) -> None:
        """A roof with a ridge (two tones) or flat with a rim, and its shadow."""
        if not self.sees(cx, cy, 2 * (along + across + height)):
            return
        self.shade(cx, cy, along, across, direction, height)
        rows, columns, _, v, inside = self.box(cx, cy, along, across, direction)
        window = self.pixels[rows, columns]
        window[inside] = colour
        if min(along, across) >= 2:
            ridge = v > 0 if self.dice.chance(70) else v > across - 2
            half = inside & ridge
            window[half] = window[half] * 13 // 16
        self.roofs[rows, columns] |= inside

    def disc(self, cx: int, cy: int, radius: int, colour: Colour, rim: int = 0) -> None:
        """A round thing lit from the upper left (trees, tanks); `rim` brightens its edge."""
        if not self.sees(cx, cy, radius):
            return
        rows, columns, u, v, _ = self.box(cx, cy, radius, radius)
        far = u * u + v * v
        inside = far <= radius * radius + radius // 2
        light = -(u + v) * 20 // max(radius, 1)
        window = self.pixels[rows, columns]
        window[inside] = np.asarray(colour, np.int32) + light[inside][:, None]
        if rim:
            edge = inside & (far >= (radius - 1) * (radius - 1))
            window[edge] += rim

    def tree(self, cx: int, cy: int, radius: int, colour: Colour) -> None:
        sx, sy = self.sun
        rows, columns, u, v, _ = self.box(cx + sx * radius // 3, cy + sy * radius // 3, radius, radius)
        under = u * u + v * v <= radius * radius
        window = self.pixels[rows, columns]
        window[under] = window[under] * 10 // 20
        self.disc(cx, cy, radius, colour)

    def finished(self, blur: int = 1, grain: int = 6) -> Ints:
        """The picture after optics and sensor: blurred `blur` times, with noise of +-grain; not clipped."""
        pixels = self.pixels
        for _ in range(blur):
            pixels = blurred(pixels)
        if grain:
            pixels = pixels + (self.dice.grid(self.height, self.width) * (2 * grain + 1) // 256 - grain)[:, :, None]
        return pixels


def exposed(dice: Dice, pixels: Ints, tone: Colour, mixing: int = 3) -> Image:
    """8-bit imagery as delivered: each picture balanced by its provider, so that colour alone names no class.

    Each band's mean, and the contrast of all, move `mixing`/4 of the way to a drawn target around `tone`. Means are
    sums of integers, so the result is exact.
    """
    count = pixels.shape[0] * pixels.shape[1]
    light = dice.between(-32, 32)
    contrast = dice.between(16, 40)
    cast = (dice.between(-7, 7), dice.between(-5, 5), dice.between(-8, 8), dice.between(-20, 20))
    grey = pixels[:, :, :3].sum(axis=2) // 3
    level = int(grey.sum(dtype=np.int64)) // count
    spread = max(1, int(np.abs(grey - level).sum(dtype=np.int64)) // count)
    gain = max(28, min(170, ((4 - mixing) * 64 + mixing * (contrast * 64 // spread)) // 4))
    tone_level = sum(tone[:3]) // 3
    balanced = np.empty_like(pixels)
    for band in range(pixels.shape[2]):
        mean = int(pixels[:, :, band].sum(dtype=np.int64)) // count
        hue = (mean - level + tone[band] - tone_level) // 2 + cast[band]
        centre = ((4 - mixing) * level + mixing * (tone_level + light)) // 4 + hue
        # Three eighths of a pixel's colour go into grey, as haze does; stretched paints would glow otherwise.
        muted = (pixels[:, :, band] - mean) * 5 // 8 + (grey - level) * 3 // 8
        balanced[:, :, band] = centre + muted * gain // 64
    return np.clip(balanced, 0, 255).astype(np.uint8)
