"""Images and rasters of one band of numbers, of the same name, in sibling folders (BioMassters)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from gfm.downstream.formats.format import Numbers, chip_windows
from gfm.downstream.formats.number_file import OFF_PX, read_numbers
from gfm.downstream.formats.number_maps import RASTERS_HELD, NumberMapsFormat
from gfm.downstream.sample import Sample, Scene, Window
from gfm.imagery.image_file import ImageFile
from gfm.imagery.placement import placed_on
from gfm.imagery.raster import ImageError, nodata_mask
from gfm.params import ImageTargets, Task


class ImageTargetsFormat(NumberMapsFormat[ImageTargets]):
    """root/AREA/images/NAME.tif with root/AREA/targets/NAME.tif of the same pixels, AREA any number of folders deep.

    The place is AREA; without areas it is the block of ground that the image lies in, else the image.
    """

    layout = "it should hold AREA/images and AREA/targets"

    def __init__(self, name: str, task: Task, data: ImageTargets, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        self._numbers = lru_cache(maxsize=RASTERS_HELD)(self._read_numbers)

    def numbers(self, sample: Sample, bands: Sequence[str]) -> Numbers:
        """The window (H, W, 1) of the target in its unit; NaN where target or image is nodata."""
        x, y, width, height = sample.window
        numbers = self._numbers(self._target_file(sample))[y : y + height, x : x + width].copy()
        if self.data.imagery.nodata is not None:
            image = self._stored(self.raw / sample.inputs[0][0])[y : y + height, x : x + width]
            numbers[nodata_mask(image, self.data.imagery.nodata)] = np.nan
        return numbers

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        if self.data.chip_px or not samples:
            return {}
        fix = f"set tasks.{self.name}.data.chip_px to cut images of any size into chips"
        return self._odd_sizes([sample.window[2:] for sample in samples], fix)

    def _target_window(self, scene: Scene, width: int, height: int) -> Window | None:
        image, target = self.raw / scene.inputs[0][0], self._target_file(scene)
        lines, columns = self._numbers(target).shape[:2]
        if (columns, lines) != (width, height):
            reason = f"is {columns}x{lines} px, its image {scene.inputs[0][0]} is {width}x{height}"
            raise ImageError(target, reason, "give the target of this image, on its grid")
        box = placed_on(image, target) if self.data.georeference == "file" else None
        if box is not None and max(abs(a - b) for a, b in zip(box, (0, 0, width, height), strict=True)) > OFF_PX:
            raise ImageError(target, "covers other ground than its image", "give the target of this image")
        return None

    def _read_numbers(self, path: Path) -> Numbers:
        return read_numbers(ImageFile(path), self.data.target, f"tasks.{self.name}.data.target")

    def _windows(self, width: int, height: int) -> Iterator[Window]:
        return chip_windows(width, height, self.data.chip_px or max(width, height))
