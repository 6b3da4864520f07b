"""Reading a raster of one band of numbers in the unit that is declared."""

from __future__ import annotations

import numpy as np

from gfm.downstream.formats.format import Numbers
from gfm.imagery.image_file import ImageFile
from gfm.imagery.raster import ImageError, nodata_mask
from gfm.params import Imagery, Measured

OFF_PX = 0.5  # further apart, the pixels of image and target do not belong together


def read_numbers(image: ImageFile, declared: Measured, key: str) -> Numbers:
    """The numbers (H, W, 1), NaN where nothing was measured; `key` is where they are declared.

    ImageError where the file is another raster than declared, or says itself that another value is nodata.
    """
    stored = image.pixels(Imagery(dtype=declared.dtype, bands={"target": None}, nodata=declared.nodata))
    said = image.nodata()
    if said is not None and not _same(said, declared.nodata):
        reason = f"says that {said:g} is nodata, data.target.nodata says {declared.nodata}"
        raise ImageError(image.path, reason, f"set {key}.nodata = {said:g}")
    with np.errstate(over="ignore"):
        numbers: Numbers = (stored.astype(np.float64) * declared.scale + declared.offset).astype(np.float32)
    if (np.isfinite(stored) & ~np.isfinite(numbers)).any():
        reason = f"holds numbers that times {declared.scale:g} plus {declared.offset:g} are too large for float32"
        raise ImageError(image.path, reason, f"correct {key}.scale or offset")
    numbers[nodata_mask(stored, declared.nodata)] = np.nan
    return numbers


def _same(one: float, other: float | None) -> bool:
    """Whether two values are one in single precision; nan is nan."""
    return other is not None and bool(np.array_equal(np.float32(one), np.float32(other), equal_nan=True))
