"""Images in one folder per class: the label is the folder's name; tables may give further labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from gfm.errors import DataError
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.image_tile import image_tile
from gfm.geopile.sources.label_tables import Labels, check_label_tables, read_label_tables
from gfm.geopile.sources.listing import matching
from gfm.geopile.sources.suffixes import PICTURES
from gfm.geopile.sources.tile import Tile
from gfm.imagery.raster import ImageError
from gfm.params import ClassFoldersSource


def list_files(name: str, source: ClassFoldersSource, folder: Folder) -> list[str]:
    """`CLASS/FILE` of every image, relative to the source's root; DataError also for tables of labels with faults."""
    files = matching(folder, name, source.include, "*/*", PICTURES)
    if source.label_tables is not None:
        read_label_tables.cache_clear()
        try:
            check_label_tables(read_label_tables(folder, source.label_tables), files, source.label_tables)
        except (DataError, ImageError) as error:
            raise DataError(f"geopile.sources.{name}.label_tables: {error}") from None
    return files


def labels_of(source: ClassFoldersSource, folder: Folder, file: str) -> Labels | None:
    """The image's labels by the source's tables; None where it has no tables, ImageError where they lack the image."""
    if source.label_tables is None:
        return None
    labels = read_label_tables(folder, source.label_tables).of(file)
    if labels is None:
        raise ImageError(folder.path(file), f"has no row in {source.label_tables}", "add one")
    return labels


def read_tiles(source: ClassFoldersSource, folder: Folder, file: str) -> Iterator[Tile]:
    """The whole image, labelled with the name of the folder that holds it."""
    label = PurePosixPath(file).parent.name or None
    labels = labels_of(source, folder, file)
    yield image_tile(source, file, folder.image(file), label=label, labels=labels)
