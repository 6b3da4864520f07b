"""BigEarthNet v2 patches: `PATCH/Bxx.tif` or `PATCH/s2.tif`, and `PATCH/meta.json`. The place is the patch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from gfm.downstream.formats.format import Pixels, TaskFormat, subfolders
from gfm.downstream.formats.published import PublishedSplit, bigearthnet_split
from gfm.downstream.sample import Refused, Sample, Scene
from gfm.imagery.band_files import find_bands, of_bands, read_bands
from gfm.imagery.raster import ImageError, read_image, to_uint8
from gfm.params import BigEarthNet


class BigEarthNetFormat(TaskFormat[BigEarthNet]):
    """root/PATCH/{B02,B03,…}.tif, or root/PATCH/s2.tif of all bands, with root/PATCH/meta.json {"labels": [...]}."""

    layout = "it should hold folders with meta.json and one GeoTIFF a band, or one of all bands"

    def classes(self, samples: Sequence[Sample]) -> list[str]:
        return sorted({label for sample in samples for label in sample.labels})

    def published_split(self) -> PublishedSplit | None:
        return bigearthnet_split(self.root, self.raw)

    def _scenes(self) -> Iterator[Scene | Refused]:
        for folder in subfolders(self.root):
            try:
                labels = _labels_of(folder / "meta.json")
                stack = folder / self.data.stack
                found = [stack] if stack.is_file() else find_bands(folder, self.data.imagery)
                files = tuple(self._relative(file) for file in found)
            except ImageError as error:
                yield Refused(self._relative(error.path), error.reason)
            else:
                yield Scene(folder.name, place=folder.name, inputs=(files,), labels=labels)

    def _images(self, inputs: tuple[tuple[str, ...], ...], bands: tuple[str, ...]) -> list[Pixels]:
        return [self._pixels([self.raw / file for file in files], bands) for files in inputs]

    def _pixels(self, files: list[Path], bands: tuple[str, ...]) -> Pixels:
        if files[0].name != self.data.stack:
            imagery = self.data.imagery
            return to_uint8(read_bands(files, imagery, bands), of_bands(imagery, bands), bands)
        # Names alone matter in a stack; the wavelengths of undeclared bands are not known here.
        stored = self.data.imagery.model_copy(update={"bands": dict.fromkeys(self.data.stack_bands)})
        return to_uint8(read_image(files[0], stored), stored, list(bands))


def _labels_of(path: Path) -> tuple[str, ...]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ImageError(path, "no such file", "every patch needs its meta.json") from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f"not readable JSON: {' '.join(str(error).split())}", "replace the file") from None
    labels = meta.get("labels") if isinstance(meta, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ImageError(path, "labels is no list of class names", 'write "labels": ["…"]')
    return tuple(sorted(set(labels)))
