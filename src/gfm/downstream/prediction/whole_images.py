"""Images that are labelled as a whole: one row each of `predictions.csv`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.prediction.inputs import Item
from gfm.downstream.prediction.model import Predictor
from gfm.downstream.prediction.scene import Pixels, opened
from gfm.downstream.tasks import TaskSpec
from gfm.imagery.raster import ImageError
from gfm.params import Imagery
from gfm.progress import track

TABLE = "predictions.csv"
SEPARATOR = "|"  # between the classes of one image, as tables of labels have it
LARGEST = 2  # times the side of the largest training image; in a larger one things would be too small to be known


def predict_images(
    predictor: Predictor,
    items: Sequence[Item],
    imagery: Imagery,
    folder: Path,
    fail: Callable[[ImageError], None],
) -> int:
    """Write the table of the images that can be predicted, and tell `fail` of the others; how many rows there are."""
    rows = 0
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_header(predictor.file.kind, predictor.model.spec))
        for batch in _batches(_read(predictor, items, imagery, fail), predictor.batch_size):
            logits = predictor.logits([[pixels] for _, pixels in batch])
            for (item, _), own in zip(batch, logits, strict=True):
                table.writerow([item.shown, *_cells(predictor.file.kind, predictor.model.spec, own)])
            rows += len(batch)
    return rows


def _read(
    predictor: Predictor, items: Sequence[Item], imagery: Imagery, fail: Callable[[ImageError], None]
) -> Iterator[tuple[Item, Pixels]]:
    for item in track(items, "images", unit="images"):
        try:
            yield item, _pixels(item.files[0], predictor, imagery)
        except ImageError as error:
            fail(error)


def _pixels(path: Path, predictor: Predictor, imagery: Imagery) -> Pixels:
    """The whole image; ImageError also where it is much larger than what the model knows, or holds nothing."""
    wide, high = predictor.file.trained_on.chip
    with opened(path, imagery, predictor.file.trained_on.bands) as scene:
        width, height = scene.place.width, scene.place.height
        if width > LARGEST * wide or height > LARGEST * high:
            reason = f"is {width}x{height} px, the model was trained on whole images of {wide}x{high}"
            raise ImageError(
                path, reason, f"cut it into such tiles (gdal_retile.py -ps {wide} {high}) and predict those"
            )
        pixels, lacking = scene.look((0, 0, width, height))
        if lacking.all():
            raise ImageError(path, "is nodata throughout", "leave it out")
        return pixels


def _batches(images: Iterator[tuple[Item, Pixels]], size: int) -> Iterator[list[tuple[Item, Pixels]]]:
    batch: list[tuple[Item, Pixels]] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _header(kind: str, spec: TaskSpec) -> list[str]:
    if kind == "regression":
        return ["file", "value", "unit"]
    return ["file", "class" if kind == "classification" else "classes", *(f"p_{name}" for name in spec.classes)]


def _cells(kind: str, spec: TaskSpec, logits: NDArray[np.float32]) -> list[str]:
    if kind == "regression":
        return [f"{float(logits[0]):.6g}", spec.unit]
    wide = logits.astype(np.float64)
    if kind == "classification":
        shares = np.exp(wide - wide.max())
        shares /= shares.sum()
        named = spec.classes[int(wide.argmax())]
    else:
        shares = 1 / (1 + np.exp(-wide))
        named = SEPARATOR.join(name for name, own in zip(spec.classes, wide, strict=True) if own > 0)
    return [named, *(f"{share:.6f}" for share in shares)]
