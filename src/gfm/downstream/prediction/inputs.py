"""Which images are asked for: files, folders of them, pairs of dates; and what their results are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gfm.downstream.formats.format import image_files, is_folder, subfolders
from gfm.downstream.prediction.scene import is_band_folder
from gfm.errors import DataError
from gfm.params import BigEarthNet, Oscd, Task


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to predict: the file (or folder of bands) of each of its dates."""

    files: tuple[Path, ...]

    @property
    def shown(self) -> str:
        """For people."""
        return " and ".join(file.as_posix() for file in self.files)

    @property
    def name(self) -> str:
        """What its results are called: as its file; dates in one folder after that, other pairs after both."""
        names = [file.resolve().name if is_folder(file) else file.stem for file in self.files]
        if len(set(names)) == 1:
            return names[0]
        if all(is_folder(file) for file in self.files) and len({file.parent for file in self.files}) == 1:
            return self.files[0].resolve().parent.name
        return "_".join(names)


def find_items(task: Task, inputs: Sequence[Path]) -> list[Item]:
    """What the inputs name, in their order, the files of a folder by name; DataError where a folder holds no image.

    Of a change task inputs are pairs, BEFORE AFTER: of files, or of folders whose files have the same names.
    """
    found = [_images(task, path) for path in inputs]
    if task.kind != "change":
        return [Item((file,)) for files in found for file in files]
    if len(inputs) % 2:
        raise DataError("a change task takes pairs: BEFORE AFTER, two files or two folders of files of the same names")
    items: list[Item] = []
    for position in range(0, len(inputs), 2):
        before, after = found[position : position + 2]
        if [before, after] == [[inputs[position]], [inputs[position + 1]]]:
            items.append(Item((before[0], after[0])))
        else:
            items += _pairs(inputs[position], before, inputs[position + 1], after)
    return items


def check_names(items: Sequence[Item], suffixes: Sequence[str]) -> None:
    """DataError where two results would have one name; `suffixes` are those of the files that an item gives."""
    owners: dict[str, Item] = {}
    for item in items:
        for suffix in suffixes:
            name = f"{item.name}{suffix}.tif"
            other = owners.setdefault(name, item)
            if other is not item:
                both = f"{other.shown} and {item.shown}"
                raise DataError(f"{both} would both be written to {name}; predict them into two folders")


def _images(task: Task, path: Path) -> list[Path]:
    by_band = isinstance(task.data, Oscd | BigEarthNet)  # that hold one GeoTIFF a band
    if not is_folder(path) or (by_band and is_band_folder(path, task.data.imagery)):
        return [path]
    found = image_files(path)
    if by_band:
        found += [folder for folder in subfolders(path) if is_band_folder(folder, task.data.imagery)]
    if not found:
        raise DataError(f"{path}: holds no image (.tif, .png, .jpg); name files, or a folder that holds them")
    return found


def _pairs(first: Path, before: Sequence[Path], second: Path, after: Sequence[Path]) -> list[Item]:
    later = {file.name: file for file in after}
    alone = sorted({file.name for file in before} ^ set(later))
    if alone:
        raise DataError(f"{first} and {second}: only one of them holds {alone[0]}; give both dates the same name")
    return [Item((file, later[file.name])) for file in before]
