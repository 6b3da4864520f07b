"""The declared sources of a collection, by format: which files they have, and the images in them.

A new format is a module with `list_files` and `read_tiles` (and `tile_names` where a file gives several images), or
with `list_files` and `find_images` where files are archives, a schema in params/geopile.py, and its branch here. Where
the files lie, on disk or in a store, is the Folder's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeGuard

from gfm.geopile.archives import path_of
from gfm.geopile.sources import archive, band_files, class_folders, images, scenes, webdataset
from gfm.geopile.sources.dates import date_of_name
from gfm.geopile.sources.folder import folder_of
from gfm.geopile.sources.image_tile import image_tile
from gfm.geopile.sources.member import ArchiveEnd, Member, Wanted, read_archive
from gfm.geopile.sources.stamp import stamp
from gfm.geopile.sources.tile import Tile
from gfm.imagery.image_file import ImageFile
from gfm.imagery.raster import ImageError
from gfm.params import (
    ArchiveSource,
    BandFilesSource,
    ClassFoldersSource,
    ImagesSource,
    ScenesSource,
    Source,
    WebdatasetSource,
)

__all__ = [
    "ArchiveEnd",
    "Archived",
    "Member",
    "Tile",
    "cuts_tiles",
    "is_archive",
    "list_files",
    "member_tile",
    "read_members",
    "read_pixels",
    "read_tiles",
    "stamp",
    "tile_names",
]

Archived = ArchiveSource | WebdatasetSource  # their files are archives of images


def cuts_tiles(source: Source) -> bool:
    """Whether a file of the source is a scene that is cut into several images."""
    return isinstance(source, ScenesSource | BandFilesSource)


def is_archive(source: Source) -> TypeGuard[Archived]:
    """Whether a file of the source is an archive, to be read by `read_members`."""
    return isinstance(source, ArchiveSource | WebdatasetSource)


def list_files(name: str, source: Source, root: Path) -> list[str]:
    """Sorted files (folders, for band-files) relative to root; DataError names the source that has none."""
    folder = folder_of(source, root)
    if isinstance(source, ScenesSource):
        return scenes.list_files(name, source, folder)
    if isinstance(source, BandFilesSource):
        return band_files.list_files(name, source, root)
    if isinstance(source, ClassFoldersSource):
        return class_folders.list_files(name, source, folder)
    if isinstance(source, ArchiveSource):
        return archive.list_files(name, source, folder)
    if isinstance(source, WebdatasetSource):
        return webdataset.list_files(name, source, folder)
    return images.list_files(name, source, folder)


def tile_names(source: Source, root: Path, file: str, tile_px: int) -> Iterator[str]:
    """The names of a file's images without reading pixels.

    Raises ImageError where the file cannot be opened; of an archive, after the names before the damage.
    """
    if isinstance(source, ScenesSource):
        yield from scenes.tile_names(source, folder_of(source, root), file, tile_px)
    elif isinstance(source, BandFilesSource):
        yield from band_files.tile_names(source, root, file, tile_px)
    elif is_archive(source):
        for part in _parts(source, root, file, lambda _: False):
            if isinstance(part, Member) and not part.reason:
                yield f"{file}/{part.name}"
            elif isinstance(part, ArchiveEnd) and part.reason:
                raise ImageError(root / file, part.reason)
    else:
        yield file


def read_tiles(
    source: Source, root: Path, file: str, tile_px: int, only: frozenset[str] | None = None
) -> Iterator[Tile]:
    """The images of a file (those named in `only`, when given); ImageError where any of it cannot be used."""
    if isinstance(source, ScenesSource):
        return scenes.read_tiles(source, folder_of(source, root), file, tile_px, only)
    if isinstance(source, BandFilesSource):
        return band_files.read_tiles(source, root, file, tile_px, only)
    if isinstance(source, ClassFoldersSource):
        return class_folders.read_tiles(source, folder_of(source, root), file)
    if isinstance(source, ImagesSource):
        return images.read_tiles(source, folder_of(source, root), file)
    raise TypeError(f"{file} is an archive: its images come from read_members and member_tile")


def read_pixels(
    source: Source, root: Path, file: str, tile_px: int, only: frozenset[str] | None = None
) -> Iterator[Tile]:
    """As `read_tiles`, but of a scene's tiles names and pixels alone: what it takes to write what is known already."""
    if isinstance(source, ScenesSource):
        return scenes.read_pixels(source, folder_of(source, root), file, tile_px, only)
    if isinstance(source, BandFilesSource):
        return band_files.read_pixels(source, root, file, tile_px, only)
    return read_tiles(source, root, file, tile_px, only)


def read_members(
    source: Archived, root: Path, file: str, only: frozenset[str] | None = None
) -> Iterator[Member | ArchiveEnd]:
    """The images of an archive (those whose tiles are named in `only`, when given), undecoded, in one pass; its end.

    A member or an archive that cannot be used comes with its reason; nothing is raised for it but a lost store.
    """
    for part in _parts(source, root, file, lambda name: only is None or f"{file}/{name}" in only):
        if isinstance(part, ArchiveEnd) or part.data is not None or part.reason:
            yield part


def member_tile(source: Archived, root: Path, file: str, member: Member) -> Tile:
    """The whole image of an archive's member, named ARCHIVE/inner/path; ImageError where it cannot be used."""
    name, path = f"{file}/{member.name}", path_of(root / file, member.name)
    if member.reason:
        raise ImageError(path, member.reason)
    date = None if source.georeference == "slippy" else date_of_name(name)
    return image_tile(source, name, ImageFile(path, member.data), label=member.label, date=date)


def _parts(source: Archived, root: Path, file: str, wanted: Wanted) -> Iterator[Member | ArchiveEnd]:
    folder = folder_of(source, root)
    if isinstance(source, ArchiveSource):
        return read_archive(folder, file, partial(archive.find_images, source, wanted=wanted))
    return read_archive(folder, file, partial(webdataset.find_images, source, wanted=wanted))
