"""GEO-Bench-2's data sets as they are published: tortillas of samples, each a tortilla of images, maps and labels.

github.com/The-AI-Alliance/GEO-Bench-2 (geobench_v2/datasets, geobench_v2/generate_benchmark).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gfm.downstream.dates import spread
from gfm.downstream.formats.format import (
    Numbers,
    Pixels,
    TaskFormat,
    entries,
    files_of,
    is_folder,
    read_in_threads,
)
from gfm.downstream.formats.labels_file import PARTS
from gfm.downstream.formats.mask_file import class_ids, read_values
from gfm.downstream.formats.number_file import read_numbers
from gfm.downstream.formats.series import check_grid, check_size, hidden, number_cut
from gfm.downstream.formats.tortilla import NESTED, Container, Entry, Stretch, missing_parts
from gfm.downstream.sample import Cut, Refused, Sample, Scene, Window
from gfm.errors import DataError
from gfm.imagery.footprint import Bounds, Corners, window_corners_data
from gfm.imagery.image_file import ImageFile
from gfm.imagery.raster import Array, ImageError, to_uint8
from gfm.params import GeoBench2Samples, Task
from gfm.progress import say

SPLIT = "tortilla:data_split"
RASTERS_HELD = 32  # decoded ones: the index looks at each date twice
_AT, _PLUS = "@", "+"  # CONTAINER/SAMPLE/FILE@OFFSET+LENGTH is read without looking into the container again


class GeoBench2Format(TaskFormat[GeoBench2Samples]):
    """root/NAME.tortilla, or NAME.0000.part.tortilla and so on. The place is the sample: parts are as published.

    A container that is damaged, or lacks a part, stops the index, since the published parts would not be whole; a
    sample that cannot be used is refused.
    """

    layout = "it should hold containers of samples (see data.files), as GEO-Bench-2 publishes them"

    def __init__(self, name: str, task: Task, data: GeoBench2Samples, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        self._stored = lru_cache(maxsize=RASTERS_HELD)(self._read_stored)
        self._fields = [data.label_field] if data.label_field else []
        self._class_of = {value: label for label, values in data.classes.items() for value in values}

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        if self.task.kind == "regression":
            return []
        return list(self.data.classes) or sorted({label for sample in samples for label in sample.labels})

    def split_source(self) -> str:
        return SPLIT

    def _scenes(self) -> Iterator[Scene | Refused]:
        try:
            named = [path for path in entries(self.root) if fnmatchcase(path.name, self.data.files)]
            containers = [Container(Stretch(path), path) for path in named if is_folder(path) is not True]
            missing = list(missing_parts(containers))
            samples = [entry for container in containers for entry in container.entries([SPLIT, *self._fields])]
        except ImageError as error:
            raise DataError(str(error)) from None
        if missing:
            told = f"{missing[0]}: no such file, one of {len(missing)} parts that are missing of the data set"
            if self.data.missing_parts == "error":
                key = f"tasks.{self.name}.data.missing_parts"
                raise DataError(f"{told}; fetch it, or set {key} = report to do without")
            say(f"warning: {self.name}: {told}")
        met = set[str]()
        for entry, item in zip(samples, read_in_threads(self._look, samples, self.name, "samples"), strict=True):
            twice = entry.id in met
            met.add(entry.id)
            yield Refused(self._relative(_path(entry)), "another sample has its name") if twice else item

    def _look(self, entry: Entry) -> Scene | Refused:
        path = _path(entry)
        try:
            part = PARTS.get(str(entry.fields.get(SPLIT)))
            if part is None:
                raise ImageError(path, f"is of no part: its {SPLIT} is {entry.fields.get(SPLIT)}")
            if entry.format != NESTED:
                raise ImageError(path, f"is a {entry.format}, not a sample of several files")
            files = Container(entry.stretch, path).entries(self._fields)
            return Scene(
                entry.id,
                entry.id,
                inputs=tuple((self._address(path, file),) for file in self._dates(files, path)),
                target=self._address(path, self._target(files, path)) if self.data.target_file else None,
                labels=self._labels_of([entry, *files], path) if self.data.label_field else (),
                part=part,
            )
        except ImageError as error:
            return Refused(self._relative(error.path), error.reason)

    def _dates(self, files: Sequence[Entry], path: Path) -> list[Entry]:
        found: dict[str, Entry] = {}
        for pattern in self.data.images:
            named = [file for file in files if fnmatchcase(file.id, pattern) and not self._is_target(file)]
            if not named:
                raise ImageError(path, f"holds no {pattern}, but {', '.join(file.id for file in files)}")
            found |= {file.id: file for file in named}
        if self.task.dates is None and len(found) > 1:
            reason = f"holds {len(found)} images, {', '.join(list(found)[:3])} and so on; name one, or declare dates"
            raise ImageError(path, reason)
        return list(found.values())

    def _target(self, files: Sequence[Entry], path: Path) -> Entry:
        found = [file for file in files if self._is_target(file)]
        if len(found) != 1:
            reason = f"holds {len(found) or 'no'} {self.data.target_file}, but {', '.join(file.id for file in files)}"
            raise ImageError(path, reason)
        return found[0]

    def _is_target(self, file: Entry) -> bool:
        return self.data.target_file is not None and fnmatchcase(file.id, self.data.target_file)

    def _labels_of(self, tables: Sequence[Entry], path: Path) -> tuple[str, ...]:
        """The labels in the first of a sample's tables that has them: its own, else those of its files."""
        field = self.data.label_field
        assert field is not None
        value = next((entry.fields[field] for entry in tables if field in entry.fields), None)
        labels = {self._label(one, path) for one in (value if isinstance(value, list) else [value])}
        if not labels or (self.task.kind == "classification" and len(labels) > 1):
            raise ImageError(path, f"has {len(labels)} labels in {field}")
        return tuple(sorted(labels))

    def _label(self, value: Any, path: Path) -> str:
        if value is None or value != value:  # a table of numbers says "none" by NaN
            raise ImageError(path, f"has no {self.data.label_field}")
        known = self.data.classes
        if isinstance(value, str) and (value in known or not known):
            return value
        if isinstance(value, int | float) and value in self._class_of:
            return self._class_of[int(value)]
        raise ImageError(
            path, f"its {self.data.label_field} is {value!r}, which tasks.{self.name}.data.classes lacks", ""
        )

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        """One sample, of at most `dates.number` dates that hold a measurement."""
        nodata = self.data.imagery.nodata
        dates = [date for date in scene.inputs if not hidden([self._stored(date[0])], nodata).all()]
        if not dates:
            raise ImageError(self._path(scene.inputs[0][0]), "is nodata, as are all dates of its sample")
        first = dates[0][0]
        for (file,) in dates:
            check_size(self._stored(file), self._path(file), self._stored(first), self._path(first).name)
        scene = replace(
            scene, inputs=tuple(dates if self.task.dates is None else spread(dates, self.task.dates.number))
        )
        if self.task.kind == "regression":
            images = self._checked_images(scene, bands)
            height, width = images[0].shape[:2]
            sample = self._sample(scene, (0, 0, width, height), (width, height), ())
            assert scene.target is not None
            return [number_cut(sample, images, self.numbers(sample, bands), self._path(scene.target))]
        return super().cut(scene, bands)

    def numbers(self, sample: Sample, bands: Sequence[str]) -> Numbers:
        """The map (H, W, 1) in its unit; NaN where it, or every date, is nodata."""
        assert sample.target is not None
        image = self._file(sample.target)
        numbers = read_numbers(image, self.data.target, f"tasks.{self.name}.data.target")
        check_grid(numbers, image.path, sample)
        numbers[hidden([self._stored(file) for (file,) in sample.inputs], self.data.imagery.nodata)] = np.nan
        return numbers

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        if self.data.target_file is None or not samples:
            return {}
        return self._odd_sizes([sample.window[2:] for sample in samples], "cut all samples to one size")

    def content(self, scene: Scene) -> str:
        digest = xxhash.xxh3_128()
        for file in files_of(scene):
            data = self._file(file).encoded()
            digest.update(data)
            digest.update(len(data).to_bytes(8, "little"))
        return str(digest.hexdigest())

    def shown(self, file: str) -> str:
        return file.rpartition(_AT)[0]

    def corners(self, sample: Sample) -> Corners:
        image = self._file(sample.inputs[0][0])
        return window_corners_data(image.encoded(), image.path, sample.window)

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        if self.data.georeference == "none":
            return None
        ground = self._file(scene.inputs[0][0]).georeference()
        return None if ground is None else ground.bounds

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [to_uint8(self._stored(file), self.data.imagery, bands) for (file,) in inputs]

    def _read_stored(self, file: str) -> Array:
        return self._file(file).pixels(self.data.imagery)

    def _mask(self, file: str) -> Pixels:
        image = self._file(file)
        return class_ids(read_values(image), image.path, self.data, f"tasks.{self.name}.data")

    def _address(self, sample: Path, file: Entry) -> str:
        return f"{self._relative(sample / file.id)}{_AT}{file.stretch.offset}{_PLUS}{file.stretch.length}"

    def _path(self, file: str) -> Path:
        return self.raw / self.shown(file)

    def _file(self, file: str) -> ImageFile:
        path = self._path(file)
        offset, _, length = file.rpartition(_AT)[2].partition(_PLUS)
        return ImageFile(path, Stretch(path.parents[1], int(offset), int(length)).read(path))


def _path(entry: Entry) -> Path:
    """A sample as errors name it: below the container that it is in."""
    return entry.stretch.file / entry.id
