"""What of a dense model's logits goes into a file: class ids, probabilities, numbers, a sharper image."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.classes import IGNORED
from gfm.downstream.tasks import TaskSpec
from gfm.downstream.tasks.dense import COLOURS
from gfm.imagery.geotiff import Layers
from gfm.params import CLASS_MAPS, Imagery

Array = NDArray[Any]
GOLDEN = 0.618034  # turn of the hue between classes beyond the chosen colours


@dataclass(frozen=True, slots=True)
class Map:
    """One file that is made of a scene: `made(logits, lacking)` gives (bands, H, W) of (channels, H, W) logits."""

    suffix: str  # of its name
    layers: Layers
    made: Callable[[NDArray[np.float32], NDArray[np.bool_]], Array]


def maps(kind: str, spec: TaskSpec, imagery: Imagery, bands: Sequence[str], probabilities: bool) -> list[Map]:
    """The files of a scene that a dense model of this kind gives."""
    if kind in CLASS_MAPS:
        names = list(spec.classes)
        ids = Layers("uint8", ["class"], IGNORED, values=names, colours=dict(enumerate(class_colours(len(names)))))
        found = [Map("", ids, _ids)]
        if probabilities:
            found.append(Map("_probabilities", Layers("float32", names, np.nan), _probabilities))
        return found
    if kind == "super-resolution":
        sharper = Layers(imagery.dtype, list(bands), imagery.nodata)
        return [Map("", sharper, lambda unit, lacking: _stored(unit, lacking, imagery))]
    return [Map("", Layers("float32", [spec.name], np.nan, unit=spec.unit), _numbers)]


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """A colour for each class: those of the pictures of predictions, then others that no two classes share."""
    colours = [(int(r), int(g), int(b)) for r, g, b in COLOURS[:count]]
    for number in range(count - len(colours)):
        light = (0.95, 0.7, 0.5)[number % 3]
        red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.75, light)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


def _ids(logits: NDArray[np.float32], lacking: NDArray[np.bool_]) -> Array:
    ids: Array = logits.argmax(axis=0)[None].astype(np.uint8)
    ids[:, lacking] = IGNORED
    return ids


def _probabilities(logits: NDArray[np.float32], lacking: NDArray[np.bool_]) -> Array:
    shares: Array = np.exp(logits - logits.max(axis=0))
    shares /= shares.sum(axis=0)
    shares[:, lacking] = np.nan
    return shares


def _numbers(numbers: NDArray[np.float32], lacking: NDArray[np.bool_]) -> Array:
    return np.where(lacking, np.float32(np.nan), numbers)


def _stored(unit: NDArray[np.float32], lacking: NDArray[np.bool_], imagery: Imagery) -> Array:
    """Values in [0, 1] as the imagery stores them; what was measured never becomes the value of nodata."""
    values = np.nan_to_num(unit, nan=0.0).clip(0, 1) / imagery.scale
    if imagery.dtype == "float32":
        stored = values.astype(np.float32)
    else:
        limits = np.iinfo(imagery.dtype)
        stored = np.floor(values + 0.5).clip(limits.min, limits.max).astype(imagery.dtype)
        if imagery.nodata is not None:
            stored[stored == imagery.nodata] += -1 if imagery.nodata == limits.max else 1
    if imagery.nodata is not None:
        stored[:, lacking] = imagery.nodata
    return stored
