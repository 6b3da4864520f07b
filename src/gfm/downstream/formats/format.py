"""The contract of a task's data format: it lists scenes and reads them; cutting and checking are the same for all."""

from __future__ import annotations

import os
import stat
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats.published import PublishedSplit
from gfm.downstream.sample import Cut, Refused, Sample, Scene, Window
from gfm.errors import DataError
from gfm.imagery.footprint import Bounds, Corners, window_bounds, window_corners
from gfm.imagery.hashing import file_hash
from gfm.imagery.raster import NOT_UTF8, ImageError, readable_name, unreadable
from gfm.params import FormatBase, Task
from gfm.progress import track

Data = TypeVar("Data", bound=FormatBase)
Item = TypeVar("Item")
Result = TypeVar("Result")
Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float32]

SMALLEST_PX = 8  # below it an image shows nothing that could be told apart
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})


class TaskFormat(ABC, Generic[Data]):
    """How one kind of data set lies on disk. A new one is a file that fills in the hooks below.

    `raw` is the folder that all files are relative to. Images are (H, W, bands) uint8, masks (H, W) uint8 class ids,
    IGNORED where a pixel is of no class.
    """

    def __init__(self, name: str, task: Task, data: Data, raw: Path) -> None:
        self.name = name
        self.task = task
        self.data = data
        self.raw = raw
        self.root = raw / data.root
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; it is tasks.{name}.data.root under paths.raw")

    def scenes(self) -> tuple[list[Scene], list[Refused]]:
        """Everything under root in sorted order, and the files that have no counterpart."""
        found: list[Scene] = []
        refused: list[Refused] = []
        items = list(self._scenes())
        published = self.published_split()
        for item in items if published is None else published.given(items):
            if isinstance(item, Refused):
                refused.append(Refused(readable_name(item.file), readable_name(item.reason)))
            elif unnameable := [file for file in files_of(item) if readable_name(file) != file]:
                refused.append(Refused(readable_name(unnameable[0]), NOT_UTF8))
            else:
                found.append(item)
        if not found:
            if refused:
                raise self.none_usable(refused)
            raise DataError(f"{self.root}: holds no samples of format {self.task.data.format}; {self.layout}")
        return found, refused

    def none_usable(self, refused: Sequence[Refused]) -> DataError:
        """The error of a task all of whose files were refused."""
        return DataError(
            f"{self.root}: no usable sample for tasks.{self.name}, all {len(refused)} were refused; "
            f"the first: {refused[0].file}: {refused[0].reason}"
        )

    def published_split(self) -> PublishedSplit | None:
        """The parts that the data set is published with, where its files lie beside the data."""
        return None

    def split_source(self) -> str:
        """What says the parts of samples that have one."""
        published = self.published_split()
        return f"column {self.data.split.column}" if published is None else published.source

    def content(self, scene: Scene) -> str:
        """Hash of the bytes that a scene is made of."""
        return file_hash([self.raw / file for file in files_of(scene)])

    def shown(self, file: str) -> str:
        """A file of a scene as people are told of it, relative to `raw`."""
        return file

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        """Read and check one scene and cut it into samples; ImageError names the file that cannot be used.

        A chip whose mask ignores every pixel is left out.
        """
        images = self._checked_images(scene, bands)
        height, width = images[0].shape[:2]
        mask = None
        if scene.target is not None:
            mask = self._mask(scene.target)
            if mask.shape != (height, width):
                image = self.shown(scene.inputs[0][0])
                reason = f"is {mask.shape[1]}x{mask.shape[0]} px, its image {image} is {width}x{height}"
                raise ImageError(self.raw / self.shown(scene.target), reason, "give the mask of this image")
        cuts = []
        for window in self._windows(width, height):
            x, y, w, h = window
            part = None if mask is None else mask[y : y + h, x : x + w]
            if part is not None and (part == IGNORED).all():
                continue
            labels = self._labels(scene, part)
            pixels = [image[y : y + h, x : x + w] for image in images]
            cuts.append(
                Cut(self._sample(scene, window, (width, height), labels), pixels, labels or self._classes_in(part))
            )
        if scene.target is not None and not cuts:
            reason = "holds no pixel of a class, all are ignored"
            raise ImageError(self.raw / self.shown(scene.target), reason, "remove it")
        return cuts

    def _checked_images(self, scene: Scene, bands: Sequence[str]) -> list[Pixels]:
        images = self._images(scene.inputs, tuple(bands))
        height, width = images[0].shape[:2]
        if min(height, width) < SMALLEST_PX:
            reason = f"is {width}x{height} px, the shorter side must have {SMALLEST_PX}"
            raise ImageError(self.raw / self.shown(scene.inputs[0][0]), reason, "remove it")
        return images

    def _sample(
        self, scene: Scene, window: Window, size: tuple[int, int], labels: tuple[str, ...], **more: Any
    ) -> Sample:
        """The sample of a window of a scene whose images are of `size`, width and height."""
        x, y, *own = window
        return Sample(
            id=scene.id if tuple(own) == size else f"{scene.id}#{x},{y}",
            place=scene.place,
            inputs=scene.inputs,
            target=scene.target,
            labels=labels,
            window=window,
            part=scene.part,
            bounds=self._bounds(scene, window),
            **more,
        )

    def images(self, sample: Sample, bands: Sequence[str]) -> list[Pixels]:
        """The sample's window of every date, in the order of `bands`."""
        x, y, width, height = sample.window
        return [image[y : y + height, x : x + width] for image in self._images(sample.inputs, tuple(bands))]

    def mask(self, sample: Sample) -> Pixels:
        """The sample's window of its mask, as class ids."""
        if sample.target is None:
            raise DataError(f"{sample.id}: has no mask; run `gfm index` again")
        x, y, width, height = sample.window
        return self._mask(sample.target)[y : y + height, x : x + width]

    def numbers(self, sample: Sample, bands: Sequence[str]) -> Numbers:
        """The sample's target (H, W, C), where it is numbers; NaN where nothing was measured."""
        raise NotImplementedError(f"{type(self).__name__} has no targets of numbers")

    def _classes_in(self, mask: Pixels | None) -> tuple[str, ...]:
        if mask is None:
            return ()
        classes = self.classes([])
        return tuple(classes[value] for value in np.unique(mask[mask != IGNORED]))

    layout = ""  # one sentence on what should lie under root

    @abstractmethod
    def classes(self, samples: Sequence[Sample]) -> list[str]:
        """Class names in the order of their ids."""

    @abstractmethod
    def _scenes(self) -> Iterator[Scene | Refused]: ...

    @abstractmethod
    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]: ...

    def _mask(self, file: str) -> Pixels:
        raise NotImplementedError(f"{type(self).__name__} has no masks")

    def _windows(self, width: int, height: int) -> Iterator[Window]:
        yield 0, 0, width, height

    def _labels(self, scene: Scene, mask: Pixels | None) -> tuple[str, ...]:
        return scene.labels

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        """Samples, by position, that can be read but not used beside the others, and why."""
        return {}

    def _odd_sizes(self, sizes: Sequence[tuple[int, int]], fix: str) -> dict[int, str]:
        """Images of another size than most: chips are padded to the largest, so one large image would shrink all.

        DataError where no size (width, height) is that of half the images.
        """
        counted = Counter(sizes)
        (width, height), count = max(counted.items(), key=lambda item: (item[1], item[0]))
        if 2 * count < len(sizes):
            raise DataError(
                f"{self.root}: {len(sizes)} images are of {len(counted)} sizes, none that of half of them "
                f"({width}x{height} px: {count}); {fix}"
            )
        return {
            position: f"is {w}x{h} px, most images of the task are {width}x{height}; {fix}"
            for position, (w, h) in enumerate(sizes)
            if (w, h) != (width, height)
        }

    def corners(self, sample: Sample) -> Corners:
        """The outline of the ground of a sample that has bounds: exact, where bounds are the box around it."""
        return window_corners(self.raw / sample.inputs[0][0], sample.window)

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        """The ground of the window of the first date's first file, as the file says."""
        return window_bounds(self.raw / scene.inputs[0][0], window)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.raw).as_posix()


def read_in_threads(read: Callable[[Item], Result], items: Sequence[Item], what: str, unit: str) -> Iterator[Result]:
    """`read` of every item, in order, with progress; threads suffice since decoding leaves Python's lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        # rasterio's notice on plain TIFFs; its readers silence it themselves, which does not hold between threads.
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        yield from track(pool.map(read, items), what, total=len(items), unit=unit)


def chip_windows(width: int, height: int, side: int) -> Iterator[Window]:
    """Chips of `side` pixels that cover an image, row by row; those at its right and lower edge are what is left."""
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield x, y, min(side, width - x), min(side, height - y)


def entries(folder: Path) -> list[Path]:
    """What lies directly in a folder, sorted, without hidden names; ImageError where the folder cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def is_folder(path: Path) -> bool | None:
    """Whether a path, links followed, is a folder; None where it cannot be looked at (missing, forbidden, a loop)."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return None


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; dangling links too, so that reading them says what is wrong."""
    return [path for path in entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and is_folder(path) is not True]


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, and what cannot be looked at (a dangling link): listing it says what is wrong."""
    return [path for path in entries(folder) if is_folder(path) is not False]


def files_of(scene: Scene) -> list[str]:
    """The files of every date, and of the target."""
    return [*(file for date in scene.inputs for file in date), *([scene.target] if scene.target else [])]
