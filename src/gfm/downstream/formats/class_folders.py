"""Images in one folder per class (UC Merced). The place is the image, the class is the folder's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gfm.downstream.formats.format import Pixels, TaskFormat, image_files, subfolders
from gfm.downstream.formats.published import PublishedSplit, uc_merced_split
from gfm.downstream.sample import Refused, Sample, Scene, Window
from gfm.imagery.footprint import Bounds
from gfm.imagery.raster import ImageError, read_image, to_uint8
from gfm.params import ClassFolders


class ClassFoldersFormat(TaskFormat[ClassFolders]):
    """root/CLASS/IMAGE."""

    layout = "it should hold one folder of images per class"

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        return sorted({label for sample in samples for label in sample.labels})

    def published_split(self) -> PublishedSplit | None:
        return uc_merced_split(self.root, self.raw)

    def _scenes(self) -> Iterator[Scene | Refused]:
        for folder in subfolders(self.root):
            try:
                files = image_files(folder)
            except ImageError as error:
                yield Refused(self._relative(folder), error.reason)
                continue
            for file in files:
                name = f"{folder.name}/{file.name}"
                yield Scene(name, place=name, inputs=((self._relative(file),),), labels=(folder.name,))

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        imagery = self.data.imagery
        return [to_uint8(read_image(self.raw / file, imagery), imagery, list(bands)) for (file,) in inputs]

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        return super()._bounds(scene, window) if self.data.georeference == "file" else None
