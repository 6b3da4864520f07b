"""Reading a mask image as integer values, whatever picture format it was saved in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gfm.downstream.classes import IGNORED
from gfm.imagery.image_file import ImageFile
from gfm.imagery.pictures import PictureError, decode_png, is_jpeg, is_png
from gfm.imagery.raster import (
    MAX_PIXELS,
    Array,
    ImageError,
    check_pixels,
    file_head,
    is_tiff,
    open_scene,
    open_scene_data,
)
from gfm.params import ClassMap, Masks

_GREY_OR_RGB = {"L", "LA", "RGB", "RGBA", "RGBX"}  # modes whose channels can all hold the same class ids
_UNNAMED_ALPHA = (["gray", "undefined"], ["red", "green", "blue", "undefined"])  # bands of a TIFF by their meaning


def read_mask(path: Path) -> NDArray[np.integer]:
    """The values of a mask (H, W) as stored: the channels' common value (alpha aside), the index of a palette picture.

    ImageError where the file is no readable picture, is a JPEG (or a TIFF compressed with such loss), where its
    channels differ, or where it holds no integers.
    """
    head = file_head(path)
    if is_jpeg(head):
        raise _inexact(path)
    if is_tiff(head):
        channels = _tiff_channels(path)
    elif _is_deep_colour_png(path):
        channels = _deep_colour_channels(path)
    else:
        channels = _picture_channels(path)
    if not np.issubdtype(channels.dtype, np.integer):
        raise ImageError(path, f"holds {channels.dtype} values, a mask holds class ids", "save it as 8-bit")
    if (channels != channels[..., :1]).any():
        raise _coloured(path)
    return channels[..., 0]


def _tiff_channels(path: Path) -> Array:
    """(H, W, C) of a TIFF as GDAL reads it: Pillow loses signs, inverts MinIsWhite and stretches 2 and 4 bits."""
    with open_scene(path, None) as dataset:
        check_pixels(path, dataset.width, dataset.height)
        stored = dataset.tags(ns="IMAGE_STRUCTURE")
        compression = stored.get("COMPRESSION", "")
        if "JPEG" in compression:
            raise _inexact(path)
        if stored.get("COMPRESSION_REVERSIBILITY") == "LOSSY":
            raise _inexact(path, compression)
        if "SOURCE_COLOR_SPACE" in stored or dataset.count > 4:  # CMYK, YCbCr or Lab, which GDAL turns into RGB
            raise _coloured(path)
        channels: Array = np.moveaxis(dataset.read(), 0, -1)
        means = [band.name for band in dataset.colorinterp]
    unnamed = channels.dtype == np.uint8 and means in _UNNAMED_ALPHA
    return channels[..., :-1] if unnamed or (len(means) > 1 and means[-1] == "alpha") else channels


def _is_deep_colour_png(path: Path) -> bool:
    """Whether a PNG has 16-bit colours or alpha, of which Pillow keeps the upper 8 bits."""
    with path.open("rb", 0) as file:
        head = file.read(26)
    return is_png(head) and head[24:25] == b"\x10" and head[25:26] in (b"\x02", b"\x04", b"\x06")


def _deep_colour_channels(path: Path) -> Array:
    try:
        pixels = decode_png(ImageFile(path).encoded(), MAX_PIXELS)
    except PictureError as error:
        raise ImageError(path, error.reason, error.fix) from None
    return pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels


def _picture_channels(path: Path) -> Array:
    """(H, W, C) of any other picture; bits are 0 and 1."""
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            values = np.asarray(picture)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = "is no readable picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise ImageError(path, reason, "replace the file") from None
    if values.ndim == 2:
        return (values.astype(np.uint8) if values.dtype == np.bool_ else values)[..., np.newaxis]
    if mode not in _GREY_OR_RGB:
        raise _coloured(path)
    return values[..., : 1 if mode == "LA" else 3]


def _inexact(path: Path, kind: str = "JPEG") -> ImageError:
    return ImageError(path, f"is a {kind}, whose values are not exact", "save it as PNG or TIFF")


def _coloured(path: Path) -> ImageError:
    return ImageError(path, "is a colour picture, not class ids", "save it with one channel")


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
