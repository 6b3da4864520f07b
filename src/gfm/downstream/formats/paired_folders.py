"""What layouts of two sibling folders share: finding the areas that hold both, and the files that belong together."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from gfm.downstream.formats.format import Data, TaskFormat, image_files, is_folder, subfolders
from gfm.downstream.sample import Refused, Scene
from gfm.errors import DataError
from gfm.imagery.raster import ImageError, unreadable


class PairedFolders(TaskFormat[Data]):
    """root/AREA/IMAGES/NAME with root/AREA/TARGETS/NAME, AREA any number of folders deep, or none."""

    counterpart = "target"  # what a file of the second folder is called

    @property
    @abstractmethod
    def folders(self) -> tuple[str, str]:
        """The names of the two folders, images first."""

    @abstractmethod
    def _place(self, area: str, image: Path) -> str:
        """The place of an image of an area ("": root itself); ImageError where it cannot be told."""

    def _key(self, file: Path, folder: str) -> str:
        """What a file shares with its counterpart, for a file of `folder`."""
        return file.stem

    def _scenes(self) -> Iterator[Scene | Refused]:
        areas, refused = self._areas()
        yield from refused
        for area in areas:
            try:
                yield from self._pairs(area)
            except ImageError as error:
                yield Refused(self._relative(error.path), error.reason)

    def _areas(self) -> tuple[list[Path], list[Refused]]:
        """Folders that hold both of the two folders, sorted, and those that cannot be searched or hold one alone.

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
                present = [part for part in self.folders if is_folder(here / part)]
                if len(present) == len(self.folders):
                    areas.append(here)
                    continue
                refused += [self._alone(here, part) for part in present if image_files(here / part)]
                for child in subfolders(here):
                    (links if child.is_symlink() else folders).append(child)
            except OSError as error:
                refused.append(Refused(self._relative(here), unreadable(here, error).reason))
            except ImageError as error:
                refused.append(Refused(self._relative(error.path), error.reason))
        return sorted(areas), refused

    def _alone(self, area: Path, part: str) -> Refused:
        """One of the two folders, with images but without the other beside it."""
        [lacking] = set(self.folders) - {part}
        count = len(image_files(area / part))
        files = f"{count} file{'s' if count > 1 else ''}"
        return Refused(self._relative(area / part), f"holds {files}, but there is no folder {lacking} beside it")

    def _pairs(self, area: Path) -> Iterator[Scene | Refused]:
        images, targets = self.folders
        partners: dict[str, Path] = {}
        for partner in image_files(area / targets):
            partners.setdefault(self._key(partner, targets), partner)
        name = "" if area == self.root else area.relative_to(self.root).as_posix()
        seen: dict[str, Path] = {}
        for image in image_files(area / images):
            file, key = self._relative(image), self._key(image, images)
            if key in seen:
                yield Refused(file, f"has the same {self.counterpart} as {seen[key].name}")
            elif key not in partners:
                yield Refused(file, f"no {self.counterpart} {targets}/{key}.* beside it")
            else:
                try:
                    place = self._place(name, image)
                except ImageError as error:
                    yield Refused(file, error.reason)
                else:
                    target = self._relative(partners[key])
                    yield Scene(image.relative_to(self.root).as_posix(), place, inputs=((file,),), target=target)
            seen.setdefault(key, image)
        for key in sorted(partners.keys() - seen.keys()):
            yield Refused(self._relative(partners[key]), f"no image {images}/{key}.* beside it")

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
