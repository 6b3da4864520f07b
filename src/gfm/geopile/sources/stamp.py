"""What tells whether a file of a source is still the one that was read."""

from __future__ import annotations

from pathlib import Path

from gfm.geopile.sources.class_folders import labels_of
from gfm.geopile.sources.cloud_mask import mask_beside
from gfm.geopile.sources.folder import DiskFolder, Stamp, folder_of
from gfm.imagery.raster import ImageError
from gfm.params import ClassFoldersSource, ScenesSource, Source


def stamp(source: Source, root: Path, file: str) -> Stamp:
    """The file's name and size, then what else changes when its images do, told without reading pixels.

    Texts and whole numbers: on disk the time of change (of each file in a scene's folder, and of what GDAL reads beside
    a GeoTIFF), in a store its tag and time; a scene's cloud mask, and the labels that tables give an image. A file that
    is not to be had has size 0 and the system's words. StoreError where a store cannot be reached.
    """
    folder = folder_of(source, root)
    known = (file, *folder.stamp(file))
    try:
        if isinstance(source, ScenesSource) and (mask := mask_beside(source.cloud, root / file)):
            known = (*known, "cloud", mask.name, *DiskFolder(mask.parent).stamp(mask.name))
        labels = labels_of(source, folder, file) if isinstance(source, ClassFoldersSource) else None
    except ImageError as error:
        labels = (error.reason,)
    return known if labels is None else (*known, "labels", *labels)
