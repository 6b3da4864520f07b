"""The declared sources of a collection, by format: which files they have, and the images in them.

A new format is a module with `list_files` and `read_tiles` (and `tile_names` where a file gives several images),
a schema in params/geopile.py, and its branch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.geopile.sources import band_files, class_folders, images, scenes
from gfm.geopile.sources.tile import Tile
from gfm.params import BandFilesSource, ClassFoldersSource, ImagesSource, ScenesSource, Source

__all__ = ["Tile", "cuts_tiles", "list_files", "read_tiles", "tile_names"]


def cuts_tiles(source: Source) -> bool:
    """Whether a file of the source gives several images (its pixels are then encoded anew)."""
    return isinstance(source, ScenesSource | BandFilesSource)


def list_files(name: str, source: Source, root: Path) -> list[str]:
    """Sorted files (folders, for band-files) relative to root; DataError names the source that has none."""
    if isinstance(source, ScenesSource):
        return scenes.list_files(name, source, root)
    if isinstance(source, BandFilesSource):
        return band_files.list_files(name, source, root)
    if isinstance(source, ClassFoldersSource):
        return class_folders.list_files(name, source, root)
    return images.list_files(name, source, root)


def tile_names(source: Source, root: Path, file: str, tile_px: int) -> list[str]:
    """The names of a file's images without reading pixels; ImageError where the file cannot be opened."""
    if isinstance(source, ScenesSource):
        return scenes.tile_names(source, root, file, tile_px)
    if isinstance(source, BandFilesSource):
        return band_files.tile_names(source, root, file, tile_px)
    return [file]


def read_tiles(
    source: Source, root: Path, file: str, tile_px: int, only: frozenset[str] | None = None
) -> Iterator[Tile]:
    """The images of a file (those named in `only`, when given); ImageError where any of it cannot be used."""
    if isinstance(source, ScenesSource):
        return scenes.read_tiles(source, root, file, tile_px, only)
    if isinstance(source, BandFilesSource):
        return band_files.read_tiles(source, root, file, tile_px, only)
    if isinstance(source, ImagesSource):
        return images.read_tiles(source, root, file)
    return class_folders.read_tiles(source, root, file)
