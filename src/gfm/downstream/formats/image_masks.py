"""Images and masks of the same name in sibling folders (WHU Aerial, hot-buildings)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats.format import Pixels, chip_windows
from gfm.downstream.formats.mask_file import read_class_ids
from gfm.downstream.formats.paired_folders import PairedFolders
from gfm.downstream.sample import Sample, Scene, Window
from gfm.imagery.footprint import Bounds, Corners, slippy_bounds, slippy_numbers
from gfm.imagery.raster import ImageError, read_image, to_uint8
from gfm.params import ImageMasks, Task

ABSENT, PRESENT = "absent", "present"
IMAGES_HELD = 8  # decoded images that are cut into chips


class ImageMasksFormat(PairedFolders[ImageMasks]):
    """root/AREA/images/NAME.png with root/AREA/masks/NAME.png, AREA any number of folders deep, or none.

    The place is AREA; where names carry slippy-map numbers it is AREA/bX_Y, the block of tiles, since neighbouring
    tiles touch and often show the same building. Without areas and numbers it is the block of ground that the image
    lies in, else the image.
    """

    layout = "it should hold AREA/images and AREA/masks"
    counterpart = "mask"

    def __init__(self, name: str, task: Task, data: ImageMasks, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        held = IMAGES_HELD if data.chip_px else 0
        self._picture = lru_cache(maxsize=held)(self._read_picture)
        self._class_ids = lru_cache(maxsize=held)(self._read_class_ids)

    @property
    def folders(self) -> tuple[str, str]:
        return self.data.images, self.data.masks

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        return [ABSENT, PRESENT] if self.task.kind == "classification" else list(self.data.classes)

    def _place(self, area: str, image: Path) -> str:
        if self.data.georeference != "slippy":
            return super()._place(area, image)
        numbers = slippy_numbers(image.stem)
        if numbers is None:
            reason = "its name does not end in slippy-map numbers X-Y-ZOOM (georeference = slippy)"
            raise ImageError(image, reason, "rename it, or set georeference = none")
        block = f"b{numbers[0] // self.data.block_tiles}_{numbers[1] // self.data.block_tiles}"
        return f"{area}/{block}" if area else block

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [self._picture(file, bands) for (file,) in inputs]

    def _read_picture(self, file: str, bands: tuple[str, ...]) -> Pixels:
        imagery = self.data.imagery
        return to_uint8(read_image(self.raw / file, imagery), imagery, bands)

    def _mask(self, file: str) -> Pixels:
        return self._class_ids(file)

    def _read_class_ids(self, file: str) -> Pixels:
        return read_class_ids(self.raw / file, self.data, f"tasks.{self.name}.data")

    def _labels(self, scene: Scene, mask: Pixels | None) -> tuple[str, ...]:
        if self.task.kind != "classification" or mask is None:
            return ()
        scored = mask[mask != IGNORED]
        share = float(np.count_nonzero(scored)) / scored.size
        return (PRESENT,) if share > 0 and share >= self.data.presence_share else (ABSENT,)

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        if self.task.kind != "segmentation" or self.data.chip_px or not samples:
            return {}
        fix = f"set tasks.{self.name}.data.chip_px to cut images of any size into chips"
        return self._odd_sizes([sample.window[2:] for sample in samples], fix)

    def corners(self, sample: Sample) -> Corners:
        if self.data.georeference == "file" or sample.bounds is None:
            return super().corners(sample)
        west, south, east, north = sample.bounds  # a slippy tile is its box
        return (west, south), (east, south), (east, north), (west, north)

    def _windows(self, width: int, height: int) -> Iterator[Window]:
        return chip_windows(width, height, self.data.chip_px or max(width, height))

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        if self.data.georeference == "file":
            return super()._bounds(scene, window)
        # Of the whole tile, also for a chip of it: chips of one tile are of one place anyway.
        numbers = slippy_numbers(Path(scene.inputs[0][0]).stem) if self.data.georeference == "slippy" else None
        return None if numbers is None else slippy_bounds(*numbers)
