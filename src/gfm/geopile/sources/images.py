"""Flat folders of images, placed on Earth by their own coordinates or by slippy-map tile numbers in their names."""

from __future__ import annotations

from collections.abc import Iterator

from gfm.geopile.sources.dates import date_of_name
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.image_tile import image_tile
from gfm.geopile.sources.listing import matching
from gfm.geopile.sources.suffixes import PICTURES
from gfm.geopile.sources.tile import Tile
from gfm.params import ImagesSource


def list_files(name: str, source: ImagesSource, folder: Folder) -> list[str]:
    """Every image at any depth, relative to the source's root."""
    return matching(folder, name, source.include, "**/*", PICTURES)


def read_tiles(source: ImagesSource, folder: Folder, file: str) -> Iterator[Tile]:
    """The whole image with its ground; a slippy-map tile is a mosaic without a date."""
    date = None if source.georeference == "slippy" else date_of_name(file)
    yield image_tile(source, file, folder.image(file), date=date)
