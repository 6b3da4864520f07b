"""What layouts of two sibling folders share: finding the areas that hold both, and the files that belong together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from gfm.downstream.formats.format import TaskFormat, image_files, is_folder
from gfm.downstream.formats.search import search
from gfm.downstream.sample import Refused, Scene
from gfm.imagery.footprint import file_block
from gfm.imagery.raster import ImageError
from gfm.params import SiblingFolders

Data = TypeVar("Data", bound=SiblingFolders)


class PairedFolders(TaskFormat[Data]):
    """root/AREA/IMAGES/NAME with root/AREA/TARGETS/NAME, AREA any number of folders deep, or none."""

    counterpart = "target"  # what a file of the second folder is called

    @property
    @abstractmethod
    def folders(self) -> tuple[str, str]:
        """The names of the two folders, images first."""

    def _place(self, area: str, image: Path) -> str:
        """The place of an image of an area ("": root itself); ImageError where it cannot be told."""
        if area and self.data.place == "folder":
            return area
        block = file_block(image, self.data.block_km) if self.data.georeference == "file" else None
        own = block or image.stem
        return f"{area}/{own}" if area else own

    def _key(self, file: Path, folder: str) -> str:
        """What a file shares with its counterpart, for a file of `folder`."""
        return file.stem

    def _scenes(self) -> Iterator[Scene | Refused]:
        alone: list[Refused] = []

        def is_area(folder: Path) -> bool:
            present = [part for part in self.folders if is_folder(folder / part)]
            if len(present) == 1 and image_files(folder / present[0]):
                alone.append(self._alone(folder, present[0]))
            return len(present) == len(self.folders)

        areas, refused = search(self.root, is_area)
        yield from alone
        yield from (Refused(self._relative(error.path), error.reason) for error in refused)
        for area in areas:
            try:
                yield from self._pairs(area)
            except ImageError as error:
                yield Refused(self._relative(error.path), error.reason)

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
