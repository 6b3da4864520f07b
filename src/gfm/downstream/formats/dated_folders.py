"""A folder a sample with one GeoTIFF a date; its label stands in a table, or its map lies beside the dates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from gfm.downstream.dates import spread
from gfm.downstream.formats.file_dates import date_of
from gfm.downstream.formats.format import Numbers, Pixels, image_files
from gfm.downstream.formats.mask_file import read_class_ids
from gfm.downstream.formats.number_file import OFF_PX, read_numbers
from gfm.downstream.formats.placed import PlacedFormat
from gfm.downstream.formats.search import search
from gfm.downstream.formats.series import check_grid, check_size, hidden, number_cut
from gfm.downstream.sample import Cut, Refused, Sample, Scene
from gfm.imagery.image_file import ImageFile
from gfm.imagery.placement import placed_on
from gfm.imagery.raster import Array, ImageError, nodata_mask, read_image, to_uint8
from gfm.params import DatedFolders, Task

RASTERS_HELD = 64  # decoded ones: the index looks at each date twice


class DatedFoldersFormat(PlacedFormat[DatedFolders]):
    """root/…/SAMPLE/*DATE*.tif, in the order of the dates in the names, which `data.date` tells apart.

    All dates of a sample are of one size and, where georeferenced, of one ground. A sample that breaks this, or has a
    file without a date or two files of one date, is refused whole: a series with a hidden gap is another series.
    """

    layout = "it should hold a folder a sample with files whose names carry dates (see data.date)"

    def __init__(self, name: str, task: Task, data: DatedFolders, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        self._stored = lru_cache(maxsize=RASTERS_HELD)(self._read_stored)

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        if self.data.target_file is None:
            return super().classes(samples)
        return list(self.data.classes) if self.task.kind == "segmentation" else []

    def _scenes(self) -> Iterator[Scene | Refused]:
        folders, refused = search(self.root, self._holds_dates)
        yield from (Refused(self._relative(error.path), error.reason) for error in refused)
        if self.data.labels is None:
            for folder in folders:
                yield self._with_map(folder)
            return
        named = set()
        for item in self._labelled(self.data.labels):
            about = self._relative(self.root / item.id) if isinstance(item, Scene) else item.file
            named |= {about, PurePosixPath(about).parent.as_posix()}  # a file of it may have been refused
            yield item
        for name in map(self._relative, folders):
            if name not in named:
                yield Refused(name, f"no row in {self.data.labels.file}")

    def _holds_dates(self, folder: Path) -> bool:
        return folder != self.root and bool(self._dates(folder))

    def _dates(self, folder: Path) -> list[Path]:
        files = (file for file in image_files(folder) if file.name != self.data.target_file)
        return [file for file in files if fnmatchcase(file.name, self.data.files)]

    def _with_map(self, folder: Path) -> Scene | Refused:
        assert self.data.target_file is not None
        target = folder / self.data.target_file
        if not target.is_file():
            return Refused(self._relative(folder), f"no {self.data.target_file} in it")
        name = folder.relative_to(self.root).as_posix()
        try:
            inputs = self._inputs(folder)
            place = self._place(name, self.raw / inputs[0][0])
        except ImageError as error:
            return Refused(self._relative(error.path), error.reason)
        return Scene(name, place, inputs, target=self._relative(target))

    def _inputs(self, path: Path) -> tuple[tuple[str, ...], ...]:
        by_date: dict[object, Path] = {}
        for file in self._dates(path):
            date = date_of(file, self.data.date)
            if date in by_date:
                raise ImageError(file, f"is of the same date as {by_date[date].name}", "leave one of them out")
            by_date[date] = file
        if not by_date:
            raise ImageError(path, f"holds no {self.data.files}", "restore them, or take its row out")
        return tuple((self._relative(by_date[date]),) for date in sorted(by_date))  # type: ignore[type-var]

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        """One sample, of at most `dates.number` dates that hold a measurement."""
        measured = [date for date in scene.inputs if self._is_measured(scene, date[0])]
        if not measured:
            raise ImageError(self.raw / scene.inputs[0][0], "is nodata, as are all dates of its sample", "remove them")
        assert self.task.dates is not None
        scene = replace(scene, inputs=tuple(spread(measured, self.task.dates.number)))
        return [self._number_map(scene, bands)] if self._has_number_map else super().cut(scene, bands)

    def _is_measured(self, scene: Scene, file: str) -> bool:
        """Whether a date holds more than nodata; ImageError where it does not lie on the first date's grid."""
        path, first = self.raw / file, self.raw / scene.inputs[0][0]
        pixels = self._stored(path)
        height, width = pixels.shape[:2]
        check_size(pixels, path, self._stored(first), first.name)
        box = placed_on(first, path) if self.data.georeference == "file" and path != first else None
        if box is not None and max(abs(a - b) for a, b in zip(box, (0, 0, width, height), strict=True)) > OFF_PX:
            raise ImageError(path, f"covers other ground than the first date {first.name}", "cut all to one grid")
        return not nodata_mask(pixels, self.data.imagery.nodata).all()

    @property
    def _has_number_map(self) -> bool:
        return self.task.kind == "regression" and self.data.target_file is not None

    def _number_map(self, scene: Scene, bands: Sequence[str]) -> Cut:
        images = self._checked_images(scene, bands)
        height, width = images[0].shape[:2]
        sample = self._sample(scene, (0, 0, width, height), (width, height), ())
        assert scene.target is not None
        return number_cut(sample, images, self.numbers(sample, bands), self.raw / scene.target)

    def numbers(self, sample: Sample, bands: Sequence[str]) -> Numbers:
        """The map (H, W, 1) in its unit; NaN where it, or every date, is nodata."""
        assert sample.target is not None
        path = self.raw / sample.target
        numbers = read_numbers(ImageFile(path), self.data.target, f"tasks.{self.name}.data.target")
        check_grid(numbers, path, sample)
        numbers[hidden([self._stored(self.raw / file) for (file,) in sample.inputs], self.data.imagery.nodata)] = np.nan
        return numbers

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        if self.data.target_file is None or not samples:
            return {}
        return self._odd_sizes([sample.window[2:] for sample in samples], "cut all samples to one size")

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [to_uint8(self._stored(self.raw / file), self.data.imagery, bands) for (file,) in inputs]

    def _read_stored(self, path: Path) -> Array:
        return read_image(path, self.data.imagery)

    def _mask(self, file: str) -> Pixels:
        return read_class_ids(self.raw / file, self.data, f"tasks.{self.name}.data")
