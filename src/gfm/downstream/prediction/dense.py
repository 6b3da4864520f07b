"""One scene through a dense model: windows of the size that it was trained on, blended, written as GeoTIFFs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from gfm.downstream.prediction.finished import is_finished, record_name, set_finished
from gfm.downstream.prediction.inputs import Item
from gfm.downstream.prediction.maps import Map, maps
from gfm.downstream.prediction.model import Predictor
from gfm.downstream.prediction.scene import Scene, check_same_ground, opened
from gfm.downstream.prediction.windows import Block, Logits, Windows
from gfm.downstream.tasks import TaskSpec
from gfm.imagery.geotiff import files_of, new_geotiff
from gfm.params import Imagery
from gfm.progress import say, track

LABELS_IMAGES = ("classification", "multilabel")  # kinds that are not dense, whatever their data
SUFFIXES = ("", "_probabilities")  # of the maps' names


def is_dense(kind: str, spec: TaskSpec) -> bool:
    """Whether a model gives every pixel something, and not an image as a whole."""
    return kind not in LABELS_IMAGES and (spec.mask_px or spec.number_px) is not None


@dataclass(frozen=True, slots=True)
class Mapper:
    """A dense model with all that its maps depend on besides the scene."""

    predictor: Predictor
    imagery: Imagery
    overlap: float
    probabilities: bool
    tags: Mapping[str, str]  # of every map
    depends: str  # changes with the model, the settings and the code

    def predict(self, item: Item, folder: Path) -> tuple[dict[str, Any], list[Path]]:
        """Write the maps of one scene, or pair of dates, into `folder`; what is to be recorded of them, and all files.

        Maps that lie there already, finished and made from the same scene in the same way, stay. ImageError where a
        file is not as declared.
        """
        predictor, trained_on = self.predictor, self.predictor.file.trained_on
        with ExitStack() as stack:
            dates = [stack.enter_context(opened(path, self.imagery, trained_on.bands)) for path in item.files]
            first = dates[0]
            for other in dates[1:]:
                check_same_ground(first, other)
            windows = Windows(
                first.place.width, first.place.height, trained_on.chip, self.overlap, _factor(predictor.model.spec)
            )
            hashes = [date.content() for date in dates]
            made_from = xxh3_128_hexdigest("/".join([self.depends, item.shown, *hashes]).encode())
            made = maps(predictor.file.kind, predictor.model.spec, first.imagery, trained_on.bands, self.probabilities)
            paths = [folder / f"{item.name}{each.suffix}.tif" for each in made]
            files = [file for path, each in zip(paths, made, strict=True) for file in files_of(path, each.layers)]
            record = folder / record_name(item.name)
            kept = is_finished(record, made_from, files)
            if kept:
                say(f"{item.name}: was finished before, from the same files")
            else:
                tags = {**self.tags, "GFM_INPUT": item.shown}
                self._write(item.name, dates, windows, list(zip(paths, made, strict=True)), tags)
                set_finished(record, made_from, files)
        about = {
            "inputs": dict(zip(map(str, item.files), hashes, strict=True)),
            "outputs": [path.name for path in paths],
            "width": windows.width,
            "height": windows.height,
            "windows": len(windows.columns) * len(windows.rows),
            "kept": kept,
        }
        return about, files

    def _write(
        self,
        name: str,
        dates: Sequence[Scene],
        windows: Windows,
        made: Sequence[tuple[Path, Map]],
        tags: Mapping[str, str],
    ) -> None:
        channels = _channels(self.predictor.model.spec)
        place = dates[0].place.finer(*windows.out, windows.factor)
        empty = True
        with ExitStack() as files:
            writers = [(files.enter_context(new_geotiff(path, place, each.layers, tags)), each) for path, each in made]
            blocks = windows.blended(channels, lambda columns, y: _look(self.predictor, dates, windows, columns, y))
            for block in track(blocks, name, total=windows.blocks(channels), unit="blocks"):
                lacking = _lacking(dates, windows, block)
                empty = empty and bool(lacking.all())
                for write, each in writers:
                    write(block.x, block.y, each.made(block.logits, lacking))
        if empty:
            say(f"note: {name}: is nodata throughout, and so is its map")


def _factor(spec: TaskSpec) -> Fraction:
    """Pixels of the result for each of the image's, along a side."""
    if spec.encoder_px is None or spec.number_px is None:
        return Fraction(1)
    return Fraction(spec.number_px, spec.image_px)


def _channels(spec: TaskSpec) -> int:
    return len(spec.classes) if spec.mask_px is not None else spec.number_bands


def _look(
    predictor: Predictor, dates: Sequence[Scene], windows: Windows, columns: Sequence[int], y: int
) -> Iterator[tuple[int, Logits]]:
    """What a row of windows shows; windows that are nodata throughout are left out. The row is read once."""
    wide, high = windows.window
    left = columns[0]
    rows, lacking = zip(*(date.look((left, y, columns[-1] + wide - left, high)) for date in dates), strict=True)
    empty = np.any(lacking, axis=0)
    shown = [x for x in columns if not empty[:, x - left : x - left + wide].all()]
    out_wide, out_high = windows.out_window
    for start in range(0, len(shown), predictor.batch_size):
        some = shown[start : start + predictor.batch_size]
        logits = predictor.logits([[row[:, x - left : x - left + wide] for row in rows] for x in some])
        yield from zip(some, logits[:, :, :out_high, :out_wide], strict=True)


def _lacking(dates: Sequence[Scene], windows: Windows, block: Block) -> NDArray[np.bool_]:
    """Which pixels of a block of the result are nodata in the scene: the pixel that each of them lies in."""
    height, width = block.logits.shape[1:]
    columns = _sources(block.x, width, windows.factor, windows.width)
    lines = _sources(block.y, height, windows.factor, windows.height)
    left, top = int(columns[0]), int(lines[0])
    window = (left, top, int(columns[-1]) + 1 - left, int(lines[-1]) + 1 - top)
    lacking: NDArray[np.bool_] = np.any([date.lacking(window) for date in dates], axis=0)
    return lacking if windows.factor == 1 else lacking[(lines - top)[:, None], columns - left]


def _sources(start: int, count: int, factor: Fraction, limit: int) -> NDArray[np.int64]:
    """The scene's pixel that each of `count` pixels of the result, from `start`, has its middle in."""
    middles = (np.arange(start, start + count) * 2 + 1) * factor.denominator // (2 * factor.numerator)
    return np.minimum(middles, limit - 1)
