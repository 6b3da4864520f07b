"""What every source gives: one image with what is known of its place, date and label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfm.imagery.footprint import Bounds, Transform
from gfm.imagery.image_file import ImageFile


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a source, pixels as stored."""

    name: str  # the file (or folder) relative to the source's root, plus `#x,y` for a tile of a scene
    pixels: np.ndarray[Any, np.dtype[Any]]  # (H, W, C), bands as declared by the source's imagery
    nodata: float | None = None  # stored value that means "no measurement"
    label: str | None = None
    labels: tuple[str, ...] | None = None  # where an image has several, beside its scene class
    gsd_m: float | None = None  # metres a pixel
    crs: str | None = None
    date: str | None = None  # ISO 8601, a year or a day
    bounds: Bounds | None = None
    transform: Transform | None = None  # of the tile's own pixels, in `crs`
    cloud: np.ndarray[Any, np.dtype[np.bool_]] | None = None  # (H, W), True where cloudy; None: no mask
    whole: ImageFile | None = None  # the file that this image is all of; None for a tile cut from a scene


def declared_gsd(gsd_m: float | tuple[float, float] | None) -> float | None:
    """A declared resolution as one number of metres: the geometric mean of a range."""
    return math.sqrt(gsd_m[0] * gsd_m[1]) if isinstance(gsd_m, tuple) else gsd_m
