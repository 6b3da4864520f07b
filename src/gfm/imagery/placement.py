"""Where the ground of one raster lies in the pixels of another."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gfm.imagery.raster import ImageError, file_head, is_tiff, open_scene

TURNED = 1e-3  # pixels sideways a pixel along; less is rounding


class Box(NamedTuple):
    """A rectangle in the pixels of a raster; it may reach beyond it."""

    x: float
    y: float
    width: float
    height: float


def placed_on(file: Path, other: Path) -> Box | None:
    """Where the whole of `file` lies in the pixels of `other`; None where one of them is not georeferenced.

    ImageError names `other` where its coordinate system is another, or one is turned against the other.
    """
    if not (is_tiff(file_head(file)) and is_tiff(file_head(other))):
        return None
    with open_scene(file, None) as here, open_scene(other, None) as there:
        if any(dataset.crs is None or dataset.transform.is_identity for dataset in (here, there)):
            return None
        if here.crs != there.crs:
            reason = f"is in {there.crs}, {file.name} is in {here.crs}"
            raise ImageError(other, reason, "reproject one of them")
        between = ~there.transform @ here.transform
        if max(abs(between.b), abs(between.d)) > TURNED or min(between.a, between.e) <= 0:
            raise ImageError(other, f"is turned against {file.name}", "give both north up")
        return Box(between.c, between.f, between.a * here.width, between.e * here.height)
