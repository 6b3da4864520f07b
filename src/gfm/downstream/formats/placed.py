"""What layouts whose samples lie anywhere below root share: the place of a sample, and its label from a table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from gfm.downstream.formats.format import TaskFormat
from gfm.downstream.formats.labels_file import read_labels
from gfm.downstream.moments import Moments
from gfm.downstream.sample import Cut, Refused, Sample, Scene, Window
from gfm.imagery.footprint import Bounds, file_block
from gfm.imagery.raster import ImageError
from gfm.params import Labels, Placed

Data = TypeVar("Data", bound=Placed)


class PlacedFormat(TaskFormat[Data]):
    """The place is a block of ground or the folder above the sample, as declared."""

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        """Those that occur; none where labels are numbers."""
        if self.task.numbers_images:
            return []
        return sorted({label for sample in samples for label in sample.labels})

    def cut(self, scene: Scene, bands: Sequence[str]) -> list[Cut]:
        """As of every format, with the number of an image that has one."""
        cuts = super().cut(scene, bands)
        if not self.task.numbers_images:
            return cuts
        number = Moments.of(np.array([float(scene.labels[0])], np.float32))
        return [replace(cut, classes=(), numbers=number) for cut in cuts]

    @abstractmethod
    def _inputs(self, path: Path) -> tuple[tuple[str, ...], ...]:
        """The files of a sample by date; ImageError where there are none."""

    def _labelled(self, labels: Labels) -> Iterator[Scene | Refused]:
        """The samples of a table of labels."""
        for row in read_labels(self.root / labels.file, labels, self.task.kind, self.data.split.column):
            path = self.root / row.path
            if row.problem:
                yield Refused(self._relative(path), row.problem)
                continue
            try:
                inputs = self._inputs(path)
                place = self._place(row.path, self.raw / inputs[0][0])
            except ImageError as error:
                yield Refused(self._relative(error.path), error.reason)
            else:
                yield Scene(row.path, place, inputs, labels=row.labels, part=row.part)

    def _place(self, name: str, first: Path) -> str:
        """The place of the sample `name`, a path below root, whose first file is `first`."""
        if self.data.split.column is not None:  # rows are split one by one; ground in two parts is reported
            return name
        if self.data.place == "folder":
            above = PurePosixPath(name).parent.as_posix()
            return name if above == "." else above
        block = file_block(first, self.data.block_km) if self.data.georeference == "file" else None
        return block or name

    def _bounds(self, scene: Scene, window: Window) -> Bounds | None:
        return super()._bounds(scene, window) if self.data.georeference == "file" else None
