"""Images anywhere below root, with a CSV table of their labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.downstream.formats.format import Pixels
from gfm.downstream.formats.placed import PlacedFormat
from gfm.downstream.sample import Refused, Scene
from gfm.imagery.raster import file_head, read_image, to_uint8
from gfm.params import LabelsTable


class LabelsTableFormat(PlacedFormat[LabelsTable]):
    """root/labels.csv of path,label[,split], paths below root."""

    layout = "it should hold a table of labels, data.labels.file, and the images that it names"

    def _scenes(self) -> Iterator[Scene | Refused]:
        yield from self._labelled(self.data.labels)

    def _inputs(self, path: Path) -> tuple[tuple[str, ...], ...]:
        file_head(path)  # says what is wrong with a file that is not there
        return ((self._relative(path),),)

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        imagery = self.data.imagery
        return [to_uint8(read_image(self.raw / file, imagery), imagery, bands) for (file,) in inputs]
