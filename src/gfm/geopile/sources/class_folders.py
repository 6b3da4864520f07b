"""Images in one folder per class: the label is the folder's name; a GeoTIFF lies where it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.geopile.sources.image_tile import image_tile
from gfm.geopile.sources.listing import PICTURES, matching
from gfm.geopile.sources.tile import Tile
from gfm.imagery.image_file import ImageFile
from gfm.params import ClassFoldersSource


def list_files(name: str, source: ClassFoldersSource, root: Path) -> list[str]:
    """`CLASS/FILE` of every image, relative to the source's root."""
    return matching(root, name, source.include, "*/*", PICTURES)


def read_tiles(source: ClassFoldersSource, root: Path, file: str) -> Iterator[Tile]:
    """The whole image, labelled with the name of the folder that holds it."""
    yield image_tile(source, file, ImageFile(root / file), label=Path(file).parent.name or None)
