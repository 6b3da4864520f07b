"""Images and masks of the same name in sibling folders (WHU Aerial, hot-buildings)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from gfm.downstream.formats.format import Pixels, TaskFormat, chip_windows, image_files, is_folder, subfolders
from gfm.downstream.formats.mask_file import read_mask
from gfm.downstream.sample import Refused, Sample, Scene, Window
from gfm.errors import DataError
from gfm.imagery.footprint import Bounds, Corners, slippy_bounds, slippy_numbers
from gfm.imagery.raster import ImageError, read_image, to_uint8, unreadable
from gfm.params import ImageMasks, ParameterError, Task

ABSENT, PRESENT = "absent", "present"
IMAGES_HELD = 8  # decoded images that are cut into chips


class ImageMasksFormat(TaskFormat[ImageMasks]):
    """root/AREA/images/NAME.png with root/AREA/masks/NAME.png, AREA any number of folders deep, or none.

    The place is AREA; where names carry slippy-map numbers it is AREA/bX_Y, the block of tiles, since neighbouring
    tiles touch and often show the same building. Without areas and numbers each image is a place of its own.
    """

    layout = "it should hold AREA/images and AREA/masks"

    def __init__(self, name: str, task: Task, data: ImageMasks, raw: Path) -> None:
        super().__init__(name, task, data, raw)
        held = IMAGES_HELD if data.chip_px else 0
        self._picture = lru_cache(maxsize=held)(self._read_picture)
        self._class_ids = lru_cache(maxsize=held)(self._read_class_ids)

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        return [ABSENT, PRESENT] if self.task.kind == "classification" else list(self.data.classes)

    def _scenes(self) -> Iterator[Scene | Refused]:
        if self.data.foreground == "above-zero" and len(self.data.classes) != 2:
            raise ParameterError(
                f"tasks.{self.name}.data.foreground = above-zero tells two classes apart, but classes has "
                f"{len(self.data.classes)}; set foreground = exact"
            )
        areas, refused = self._areas()
        yield from refused
        for area in areas:
            try:
                yield from self._pairs(area)
            except ImageError as error:
                yield Refused(self._relative(error.path), error.reason)

    def _areas(self) -> tuple[list[Path], list[Refused]]:
        """Folders that hold both an `images` and a `masks` folder, sorted, and the folders that cannot be searched.

        Links are followed after all real folders, and each folder is searched once, so that a link that leads back
        ends nowhere and one to another area does not list it twice.
        """
        areas: list[Path] = []
        refused: list[Refused] = []
        met: set[tuple[int, int]] = set()
        folders, links = [self.root], list[Path]()
        while folders or links:
            here = folders.pop() if folders else links.pop(0)
            try:
                status = here.stat()
                if (status.st_dev, status.st_ino) in met:
                    continue
                met.add((status.st_dev, status.st_ino))
                if all(is_folder(here / part) for part in (self.data.images, self.data.masks)):
                    areas.append(here)
                    continue
                for child in subfolders(here):
                    (links if child.is_symlink() else folders).append(child)
            except OSError as error:
                refused.append(Refused(self._relative(here), unreadable(here, error).reason))
            except ImageError as error:
                refused.append(Refused(self._relative(error.path), error.reason))
        return sorted(areas), refused

    def _pairs(self, area: Path) -> Iterator[Scene | Refused]:
        masks: dict[str, Path] = {}
        for mask in image_files(area / self.data.masks):
            masks.setdefault(mask.stem, mask)
        name = "" if area == self.root else area.relative_to(self.root).as_posix()
        seen: dict[str, Path] = {}
        for image in image_files(area / self.data.images):
            file = self._relative(image)
            numbers = slippy_numbers(image.stem) if self.data.georeference == "slippy" else None
            if image.stem in seen:
                yield Refused(file, f"has the same mask as {seen[image.stem].name}")
            elif image.stem not in masks:
                yield Refused(file, f"no mask {self.data.masks}/{image.stem}.* beside it")
            elif self.data.georeference == "slippy" and numbers is None:
                yield Refused(file, "its name does not end in slippy-map numbers X-Y-ZOOM (georeference = slippy)")
            else:
                place = name or (image.stem if numbers is None else "")
                if numbers is not None:
                    block = f"b{numbers[0] // self.data.block_tiles}_{numbers[1] // self.data.block_tiles}"
                    place = f"{place}/{block}" if place else block
                target = self._relative(masks[image.stem])
                yield Scene(image.relative_to(self.root).as_posix(), place, inputs=((file,),), target=target)
            seen.setdefault(image.stem, image)
        for stem in sorted(masks.keys() - seen.keys()):
            yield Refused(self._relative(masks[stem]), f"no image {self.data.images}/{stem}.* beside it")

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [self._picture(file, bands) for (file,) in inputs]

    def _read_picture(self, file: str, bands: tuple[str, ...]) -> Pixels:
        imagery = self.data.imagery
        return to_uint8(read_image(self.raw / file, imagery), imagery, bands)

    def _mask(self, file: str) -> Pixels:
        return self._class_ids(file)

    def _read_class_ids(self, file: str) -> Pixels:
        values = read_mask(self.raw / file)
        if self.data.foreground == "above-zero":
            return (values > 0).astype(np.uint8)  # as declared: instance ids are foreground too
        highest = len(self.data.classes) - 1
        unknown = np.unique(values[values > highest])
        if unknown.size:
            raise ImageError(
                self.raw / file,
                f"mask value {unknown[0]} is no class id, classes are 0 to {highest}",
                "list every class in data.classes, or set data.foreground = above-zero for masks of 0 and 255",
            )
        return values.astype(np.uint8)

    def _labels(self, scene: Scene, mask: Pixels | None) -> tuple[str, ...]:
        if self.task.kind != "classification" or mask is None:
            return ()
        share = float(np.count_nonzero(mask)) / mask.size
        return (PRESENT,) if share > 0 and share >= self.data.presence_share else (ABSENT,)

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        """Images of another size than most: chips are padded to the largest, so one large image would shrink all.

        DataError where no size is that of half the images.
        """
        if self.task.kind != "segmentation" or self.data.chip_px or not samples:
            return {}
        sizes = Counter(sample.window[2:] for sample in samples)
        (width, height), count = max(sizes.items(), key=lambda item: (item[1], item[0]))
        fix = f"set tasks.{self.name}.data.chip_px to cut images of any size into chips"
        if 2 * count < len(samples):
            raise DataError(
                f"{self.root}: {len(samples)} images are of {len(sizes)} sizes, none that of half of them "
                f"({width}x{height} px: {count}); {fix}"
            )
        return {
            position: f"is {w}x{h} px, most images of the task are {width}x{height}; {fix}"
            for position, (_, _, w, h) in enumerate(sample.window for sample in samples)
            if (w, h) != (width, height)
        }

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
