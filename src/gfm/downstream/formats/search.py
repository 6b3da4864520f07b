"""Searching a tree for the folders that are wanted, links and unreadable folders included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gfm.downstream.formats.format import subfolders
from gfm.imagery.raster import ImageError, unreadable


def search(root: Path, is_wanted: Callable[[Path], bool]) -> tuple[list[Path], list[ImageError]]:
    """Folders from `root` down that are wanted, sorted, and what could not be searched; none below a wanted one.

    Links are followed after all real folders, and each folder is searched once, so that a link that leads back ends
    nowhere and one to another folder does not list it twice.
    """
    found: list[Path] = []
    refused: list[ImageError] = []
    met: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in met:
                continue
            met.add((status.st_dev, status.st_ino))
            if is_wanted(here):
                found.append(here)
                continue
            for child in subfolders(here):
                (links if child.is_symlink() else folders).append(child)
        except OSError as error:
            refused.append(unreadable(here, error))
        except ImageError as error:
            refused.append(error)
    return sorted(found), refused
