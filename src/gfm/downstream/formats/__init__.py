"""Data formats of downstream tasks, one file each; `open_format` gives the one that a task declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfm.downstream.formats.bigearthnet import BigEarthNetFormat
from gfm.downstream.formats.class_folders import ClassFoldersFormat
from gfm.downstream.formats.dated_folders import DatedFoldersFormat
from gfm.downstream.formats.format import TaskFormat, read_in_threads
from gfm.downstream.formats.geobench2 import GeoBench2Format
from gfm.downstream.formats.image_masks import ImageMasksFormat
from gfm.downstream.formats.image_targets import ImageTargetsFormat
from gfm.downstream.formats.labels_table import LabelsTableFormat
from gfm.downstream.formats.oscd import OscdFormat
from gfm.downstream.formats.spacenet2 import SpaceNet2Format
from gfm.params import (
    BigEarthNet,
    ClassFolders,
    DatedFolders,
    GeoBench2Samples,
    ImageMasks,
    ImageTargets,
    LabelsTable,
    SpaceNet2,
    Task,
)

__all__ = ["TaskFormat", "open_format", "read_in_threads"]


def open_format(name: str, task: Task, raw: Path) -> TaskFormat[Any]:
    """The reader of a task's data; DataError where its root is missing."""
    data = task.data
    if isinstance(data, ClassFolders):
        return ClassFoldersFormat(name, task, data, raw)
    if isinstance(data, ImageMasks):
        return ImageMasksFormat(name, task, data, raw)
    if isinstance(data, BigEarthNet):
        return BigEarthNetFormat(name, task, data, raw)
    if isinstance(data, SpaceNet2):
        return SpaceNet2Format(name, task, data, raw)
    if isinstance(data, ImageTargets):
        return ImageTargetsFormat(name, task, data, raw)
    if isinstance(data, LabelsTable):
        return LabelsTableFormat(name, task, data, raw)
    if isinstance(data, DatedFolders):
        return DatedFoldersFormat(name, task, data, raw)
    if isinstance(data, GeoBench2Samples):
        return GeoBench2Format(name, task, data, raw)
    return OscdFormat(name, task, data, raw)
