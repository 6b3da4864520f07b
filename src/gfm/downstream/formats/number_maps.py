"""What layouts whose targets are rasters of numbers share: cutting them, and what of them is measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from gfm.downstream.formats.format import Pixels
from gfm.downstream.formats.paired_folders import PairedFolders
from gfm.downstream.moments import Moments
from gfm.downstream.sample import Cut, Sample, Scene, Window
from gfm.errors import DataError
from gfm.imagery.footprint import Bounds
from gfm.imagery.raster import Array, ImageError, read_image, to_uint8
from gfm.params import NumberMaps, Task

Targets = TypeVar("Targets", bound=NumberMaps)

RASTERS_HELD = 8  # decoded ones that are cut into chips


class NumberMapsFormat(PairedFolders[Targets]):
    """Every image has a raster of numbers; a pixel that is nodata in either of the two is not measured."""

    def __init__(self, name: str, task: Task, data: Targets, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        self._stored = lru_cache(maxsize=RASTERS_HELD)(self._read_stored)

    @property
    def folders(self) -> tuple[str, str]:
        return self.data.images, self.data.targets

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        """None: nothing is told apart."""
        return []

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        """As of every format; a chip without any measured pixel is left out, a scene without any is refused."""
        images = self._checked_images(scene, bands)
        height, width = images[0].shape[:2]
        whole = self._target_window(scene, width, height)
        cuts = []
        for window in self._windows(width, height):
            x, y, w, h = window
            sample = self._sample(scene, window, (width, height), (), target_window=whole)
            numbers = self.numbers(sample, bands)
            measured = numbers[np.isfinite(numbers)]
            if measured.size:
                pixels = [image[y : y + h, x : x + w] for image in images]
                cuts.append(Cut(sample, [*pixels, *self._target_pictures(scene, bands)], (), Moments.of(measured)))
        if not cuts:
            raise ImageError(self._target_file(scene), "holds no measured pixel, all is nodata", "remove it")
        return cuts

    @abstractmethod
    def _target_window(self, scene: Scene, width: int, height: int) -> Window | None:
        """The window of the target that shows the ground of an image; None: they have the same pixels.

        ImageError where they do not show the same ground.
        """

    def _target_pictures(self, scene: Scene, bands: Sequence[str]) -> list[Pixels]:
        """The target, where it is a picture that could also lie in the collection."""
        return []

    def _target_file(self, item: Scene | Sample) -> Path:
        if item.target is None:
            raise DataError(f"{item.id}: has no target; run `gfm index` again")
        return self.raw / item.target

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        return super()._bounds(scene, window) if self.data.georeference == "file" else None

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [to_uint8(self._stored(self.raw / file), self.data.imagery, list(bands)) for (file,) in inputs]

    def _read_stored(self, path: Path) -> Array:
        return read_image(path, self.data.imagery)
