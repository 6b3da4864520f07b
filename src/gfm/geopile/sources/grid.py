"""How a scene is cut into tiles, and how such a tile is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.imagery.raster import ImageError


def tile_corners(width: int, height: int, tile_px: int, path: Path) -> Iterator[tuple[int, int]]:
    """Left and top of every full tile, row by row.

    Partial tiles at the right and lower edge are dropped, not shifted inward: no pixel is in two tiles, so splitting
    by place stays clean, and reading follows the file's own blocks. Raises ImageError for a scene below one tile.
    """
    if width < tile_px or height < tile_px:
        reason = f"smaller than one tile ({width}x{height} px, geopile.tile_px is {tile_px})"
        raise ImageError(path, reason, "lower geopile.tile_px, or declare it as images")
    for top in range(0, height - tile_px + 1, tile_px):
        for left in range(0, width - tile_px + 1, tile_px):
            yield left, top


def tile_name(file: str, left: int, top: int) -> str:
    """`FILE#x,y`, in pixels of the scene."""
    return f"{file}#{left},{top}"
