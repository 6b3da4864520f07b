"""What tells whether a file of a source is still the one that was read."""

from __future__ import annotations

from pathlib import Path

from gfm.geopile.sources.class_folders import labels_of
from gfm.geopile.sources.cloud_mask import mask_beside
from gfm.geopile.sources.folder import DiskFolder, folder_of
from gfm.params import ClassFoldersSource, ScenesSource, Source


def stamp(source: Source, root: Path, file: str) -> str:
    """A text that changes when what the images of a listed file depend on does, told without reading pixels.

    On disk it is made of name, size and time of change (of every file in a scene's folder, for band-files), in a store
    of size, tag and time, as far as the store tells them; a scene's cloud mask and an image's labels from tables are
    part of it. Raises ImageError where there is no such file, StoreError where the store cannot be reached.
    """
    folder = folder_of(source, root)
    text = folder.stamp(file)
    if isinstance(source, ScenesSource) and (mask := mask_beside(source.cloud, root / file)):
        text += f"|{DiskFolder(mask.parent).stamp(mask.name)}"
    labels = labels_of(source, folder, file) if isinstance(source, ClassFoldersSource) else None
    return text if labels is None else f"{text}|{','.join(labels)}"


def size_of(source: Source, root: Path, file: str) -> int:
    """Bytes of a file, or of the files in a scene's folder; 0 where it cannot be told."""
    return folder_of(source, root).size(file)
