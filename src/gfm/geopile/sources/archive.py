"""Images inside tar and zip archives; the label is the folder that holds an image inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from gfm.geopile.archives import SUFFIXES, Entry
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.listing import matching
from gfm.geopile.sources.member import Ignored, Member, Wanted, no_image, read_member
from gfm.params import ArchiveSource


def list_files(name: str, source: ArchiveSource, folder: Folder) -> list[str]:
    """Every archive at any depth, relative to the source's root."""
    return matching(folder, name, source.include, "**/*", SUFFIXES)


def find_images(source: ArchiveSource, entries: Iterator[Entry], wanted: Wanted) -> Iterator[Member | Ignored]:
    """Every file inside whose name ends as an image's does."""
    for entry in entries:
        label = PurePosixPath(entry.name).parent.name or None if source.labels == "folders" else None
        yield no_image(entry) or read_member(entry, wanted, label)
