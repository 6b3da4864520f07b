"""Reading a mask image as integer values, whatever picture format it was saved in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gfm.imagery.raster import ImageError


def read_mask(path: Path) -> NDArray[np.integer]:
    """The values of a mask (H, W): the first channel of a colour picture, the index of a palette picture.

    ImageError where the file is no readable picture or holds no integers.
    """
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = "is no readable picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise ImageError(path, reason, "replace the file") from None
    if values.ndim == 3:
        values = values[..., 0]
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer) or values.ndim != 2:
        raise ImageError(path, f"holds {values.dtype} values, a mask holds class ids", "save it as 8-bit")
    if values.size and values.min() < 0:
        raise ImageError(path, f"holds the value {values.min()}", "save it as 8-bit class ids")
    return values
