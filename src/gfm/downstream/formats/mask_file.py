"""Reading a mask image as integer values, whatever picture format it was saved in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gfm.downstream.classes import IGNORED
from gfm.imagery.image_file import ImageFile
from gfm.imagery.pictures import is_jpeg
from gfm.imagery.raster import ImageError, check_pixels, file_head, open_scene_data
from gfm.params import ClassMap, Masks

_GREY_OR_RGB = {"L", "LA", "RGB", "RGBA", "RGBX"}  # modes whose channels can all hold the same class ids


def read_mask(path: Path) -> NDArray[np.integer]:
    """The values of a mask (H, W): the channels' common value (alpha aside), the index of a palette picture.

    ImageError where the file is no readable picture, is a JPEG (or a TIFF compressed as one), where its channels
    differ, or where it holds no integers.
    """
    jpeg = is_jpeg(file_head(path))
    try:
        with Image.open(path) as picture:
            jpeg = jpeg or picture.info.get("compression") == "jpeg"
            mode = picture.mode
            values = np.asarray(picture)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = "is no readable picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise ImageError(path, reason, "replace the file") from None
    if jpeg:
        raise ImageError(path, "is a JPEG, whose values are not exact", "save it as PNG or TIFF")
    if values.ndim == 3:
        colours = values[..., : 1 if mode == "LA" else 3]
        if mode not in _GREY_OR_RGB or (colours != colours[..., :1]).any():
            raise ImageError(path, "is a colour picture, not class ids", "save it with one channel")
        values = colours[..., 0]
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer) or values.ndim != 2:
        raise ImageError(path, f"holds {values.dtype} values, a mask holds class ids", "save it as 8-bit")
    return values


def read_values(image: ImageFile) -> NDArray[np.integer]:
    """The values of a TIFF of one band of whole numbers (H, W), negative ones too, in whatever way it is compressed.

    ImageError where it is no such file.
    """
    with open_scene_data(image.encoded(), None, image.path) as dataset:
        if dataset.count != 1:
            raise ImageError(image.path, f"has {dataset.count} bands, a map of classes has one", "give one band")
        check_pixels(image.path, dataset.width, dataset.height)
        values: NDArray[Any] = dataset.read(1)
    if values.dtype.kind == "f":
        if not (np.isfinite(values) & (values == np.rint(values))).all():
            raise ImageError(image.path, "holds fractions or NaN, a map holds class ids", "give the map of classes")
        values = values.astype(np.int64)
    return values


def read_class_ids(path: Path, declared: Masks, key: str) -> NDArray[np.uint8]:
    """A mask (H, W) as class ids, IGNORED where declared so; ImageError where a value is neither of the two.

    `above-zero` foreground: any value above 0 is class 1, instance ids too. `key` is where `declared` stands.
    """
    values = read_mask(path)
    if declared.foreground == "above-zero":
        ignored = np.isin(values, declared.ignore)
        below = values[(values < 0) & ~ignored]
        if below.size:
            raise ImageError(path, f"holds the value {below.min()}, which is no class; name it in {key}.ignore")
        return np.where(ignored, IGNORED, values > 0).astype(np.uint8)
    only_255 = len(declared.classes) == 2 and values.max(initial=0) == 255
    return class_ids(values, path, declared, key, f", or set {key}.foreground = above-zero" if only_255 else "")


def class_ids(
    values: NDArray[np.integer], path: Path, declared: ClassMap, key: str, other_fix: str = ""
) -> NDArray[np.uint8]:
    """The class of every stored value, IGNORED where declared so; ImageError, naming `path`, for any other value."""
    meanings = dict.fromkeys(declared.ignore, IGNORED)
    for number, stored in enumerate(declared.classes.values()):
        meanings |= dict.fromkeys(stored, number)
    known = np.array(sorted(meanings))
    nearest = np.minimum(np.searchsorted(known, values), len(known) - 1)
    strange = values[known[nearest] != values]
    if strange.size:
        fix = f"name it in {key}.classes, or in its ignore{other_fix}"
        raise ImageError(path, f"holds the value {strange.min()}, which is no class; {fix}")
    ids: NDArray[np.uint8] = np.array([meanings[value] for value in known.tolist()], np.uint8)[nearest]
    return ids


def foreground(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """1 where a two-valued mask is above half of its largest value, else 0.

    So masks of 0 and 1, of 0 and 255, and those with smoothed (grey) edges say the same.
    """
    above: NDArray[np.bool_] = values > values.max(initial=0) / 2
    return above.astype(np.uint8)
