"""Pictures for a page that carries everything inside: downscaled, compressed, as data addresses."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from gfm.errors import DataError

WIDTHS_PX = (1400, 1100, 850, 650, 480)  # tried from the largest until the picture fits its share of the page
JPEG_QUALITY = 80


def png_address(png: bytes) -> str:
    """A PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def picture_address(path: Path, budget_bytes: int) -> str:
    """A picture file as a `data:` address of about `budget_bytes` at most, however large the file.

    Raises DataError naming a file that is no picture.
    """
    try:
        with Image.open(path) as stored:
            image = stored.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error}); repeat the stage that wrote it") from None
    data = b""
    for width in WIDTHS_PX:
        small = image.copy()
        small.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, subsampling=0)
        data = buffer.getvalue()
        if len(data) * 4 / 3 <= budget_bytes:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
