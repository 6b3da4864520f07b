"""Onera Satellite Change Detection's layout: one GeoTIFF a band and date, change masks. The place is the city."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from gfm.downstream.formats.format import Pixels, TaskFormat, chip_windows, entries, subfolders
from gfm.downstream.formats.mask_file import foreground, read_mask
from gfm.downstream.sample import Cut, Refused, Sample, Scene, Window
from gfm.errors import DataError
from gfm.imagery.band_files import find_bands, of_bands, read_bands
from gfm.imagery.footprint import georeference
from gfm.imagery.raster import ImageError, to_uint8, unreadable
from gfm.params import Oscd, Task

CLASSES = ("no change", "change")
DATES = ("imgs_1", "imgs_2")
GROUND_DEGREES = 2e-4  # two pixels of 10 m: the dates of one city differ by less
SCENES_HELD = 32  # decoded cities; chips are drawn in random order from all of them


class OscdFormat(TaskFormat[Oscd]):
    """images/CITY/imgs_{1,2}/*_Bxx.tif with train_labels/CITY/cm/cm.png (or test_labels), bright = change.

    All bands are resampled to the grid of the first date's first declared band, which the mask must have too.
    """

    layout = "it should hold images/CITY/imgs_1, images/CITY/imgs_2 and train_labels/CITY/cm/cm.png"

    def __init__(self, name: str, task: Task, data: Oscd, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        self._pair = lru_cache(maxsize=SCENES_HELD)(self._read_pair)
        self._change = lru_cache(maxsize=SCENES_HELD)(self._read_change)

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        return list(CLASSES)

    def _scenes(self) -> Iterator[Scene | Refused]:
        cities = self.root / "images"
        for folder in subfolders(cities) if cities.is_dir() else []:
            city = folder.name
            masks = [self.root / part / city / "cm" / "cm.png" for part in ("train_labels", "test_labels")]
            try:
                mask = next((path for path in masks if path.is_file()), None)
                children = {child.name for child in entries(folder)}
            except ImageError as error:
                yield Refused(self._relative(folder), error.reason)
                continue
            except OSError as error:
                yield Refused(self._relative(masks[0]), unreadable(masks[0], error).reason)
                continue
            missing = [date for date in DATES if date not in children]
            if missing:
                yield Refused(self._relative(folder), f"no folder {' and '.join(missing)}")
            elif mask is None:
                yield Refused(self._relative(folder), f"no change mask train_labels/{city}/cm/cm.png")
            else:
                try:
                    inputs = tuple(
                        tuple(map(self._relative, find_bands(folder / date, self.data.imagery))) for date in DATES
                    )
                except ImageError as error:
                    yield Refused(self._relative(error.path), error.reason)
                else:
                    yield Scene(city, place=city, inputs=inputs, target=self._relative(mask))

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        first, second = (self.raw / files[0] for files in scene.inputs)
        here, there = georeference(first), georeference(second)
        if here and there and max(abs(a - b) for a, b in zip(here.bounds, there.bounds, strict=True)) > GROUND_DEGREES:
            raise ImageError(second, "covers other ground than the first date", "give two dates of the same ground")
        return super().cut(scene, bands)

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return self._pair(inputs, bands)

    def _read_pair(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        import cv2

        imagery = self.data.imagery
        first_files, second_files = ([self.raw / file for file in files] for files in inputs)
        first = read_bands(first_files, imagery, bands)
        second = read_bands(second_files, imagery, bands)
        if second.shape != first.shape:
            if self.data.align == "error":
                raise DataError(
                    f"{self._relative(second_files[0].parent.parent)}: imgs_2 is {second.shape[1]}x{second.shape[0]} "
                    f"px, imgs_1 is {first.shape[1]}x{first.shape[0]}; set tasks.{self.name}.data.align = resample to "
                    "match the first date"
                )
            height, width = first.shape[:2]
            second = cv2.resize(second, (width, height), interpolation=cv2.INTER_LINEAR).reshape(first.shape)
        declared = of_bands(imagery, bands)
        return [to_uint8(date, declared, bands) for date in (first, second)]

    def _mask(self, file: str) -> Pixels:
        return self._change(file)

    def _read_change(self, file: str) -> Pixels:
        return foreground(read_mask(self.raw / file))

    def _windows(self, width: int, height: int) -> Iterator[Window]:
        return chip_windows(width, height, self.data.chip_px)
