"""Read images exactly as declared: any file that differs from its declaration is refused with a reason.

Nothing is converted on the way in (no rotation by EXIF, no dropped alpha, no stretched range); `to_unit` and
`to_uint8` are the only places where stored values become values of a picture.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gfm.errors import DataError, GfmError
from gfm.imagery.pictures import PictureError, decode_jpeg, decode_png, is_jpeg, is_png
from gfm.imagery.planes import interleaved
from gfm.params import Imagery

# MB of blocks that GDAL keeps; its own choice is 5 % of the machine's memory, in every process.
os.environ.setdefault("GDAL_CACHEMAX", "128")

Array = np.ndarray[Any, np.dtype[Any]]

# Pillow's own limit for decompression bombs; a larger picture is read by windows (`open_scene`), never whole.
MAX_PIXELS = 178_956_970
MAX_FILE_BYTES = 1 << 29  # of a file that is read whole: what MAX_PIXELS take in three bands of 8 bits

NOT_UTF8 = "its name is not valid UTF-8"  # reason of a file that no table could name

_STREAM = "stream/scene.tif"  # what a scene that has no file is called inside GDAL
_IN_STREAM = rf"(/vsi\w+/)?({_STREAM}|scene\.tif)"

_HEAD_BYTES = 16
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


class ImageError(GfmError):
    """One file that cannot be used: `path`, a short `reason`, and a `fix`; the message is one line of the three."""

    def __init__(self, path: Path | str, reason: str, fix: str = "") -> None:
        self.path, self.reason, self.fix = Path(path), reason, fix
        super().__init__(path, reason, fix)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}{'; ' if self.fix else ''}{self.fix}"


def readable_name(name: str) -> str:
    """The name with what is not UTF-8 written as escapes; it equals `name` where all of it is valid."""
    return name.encode(errors="backslashreplace").decode()


def read_image(path: Path, imagery: Imagery) -> Array:
    """A whole PNG, JPEG or TIFF as stored: (H, W, C) of `imagery.dtype`, C = len(imagery.bands), bands in file order.

    The file's content, not its suffix, says what it is. Raises ImageError when the file is missing, unreadable, empty,
    truncated, not an image, of another dtype or band count than declared, not finite, or larger than MAX_PIXELS.
    """
    data = picture_bytes(path)
    if data is not None:
        return decode_picture(data, imagery, path)
    with open_scene(path, imagery) as dataset:
        check_pixels(path, dataset.width, dataset.height)
        return read_window(dataset, imagery)


def decode_image(data: bytes, imagery: Imagery, path: Path) -> Array:
    """What `read_image` gives of a file that holds `data`; `path` only names it in an ImageError."""
    if is_tiff(data):
        with open_scene_data(data, imagery, path) as dataset:
            check_pixels(path, dataset.width, dataset.height)
            return read_window(dataset, imagery)
    _check_picture(path, data)
    return decode_picture(data, imagery, path)


def decode_picture(data: bytes, imagery: Imagery, path: Path) -> Array:
    """Encoded PNG or JPEG bytes -> (H, W, C) as declared; `path` only names the file in an ImageError."""
    try:
        if is_jpeg(data):
            pixels = decode_jpeg(data, MAX_PIXELS)
        else:
            pixels = decode_png(data, MAX_PIXELS)
    except PictureError as error:
        raise ImageError(path, error.reason, error.fix) from None
    _check_declared(path, pixels.shape[2], pixels.dtype, imagery)
    return pixels


@contextmanager
def open_scene(path: Path, imagery: Imagery | None, overview: int | None = None) -> Iterator[Any]:
    """An open rasterio dataset of a TIFF whose bands and dtype are as declared (`imagery=None`: unchecked).

    `overview` opens the file's n-th reduced copy of itself, from 0, instead of its full resolution. Read it by
    `read_window`. Raises ImageError for anything that is wrong with the file, also inside the `with` block.
    """
    import rasterio

    _check_tiff(path, file_head(path))
    # GTiff alone: GDAL must not take a crafted file for a format that refers to other files.
    with reading(path), _plain_tiff_is_fine(), rasterio.open(path, driver="GTiff", **_level(overview)) as dataset:
        _check_scene(path, dataset, imagery)
        yield dataset


@contextmanager
def open_scene_stream(
    opened: Callable[[], BinaryIO], imagery: Imagery | None, path: Path, overview: int | None = None
) -> Iterator[Any]:
    """As `open_scene`, of a TIFF that is read through a seekable stream, by ranges; `path` only names it.

    `opened` gives a new stream each time. What may lie beside the file (.ovr, .aux.xml) is not looked for.
    """
    import rasterio

    def opener(name: str, mode: str = "rb") -> BinaryIO:
        if name != _STREAM:
            raise FileNotFoundError(name)
        return opened()

    with opened() as file:
        try:
            head = file.read(16)
        except OSError as error:  # gone since it was listed
            raise unreadable(path, error) from None
    _check_tiff(path, head)
    try:
        with (
            reading(Path(_STREAM)),
            _plain_tiff_is_fine(),
            rasterio.open(_STREAM, driver="GTiff", opener=opener, **_level(overview)) as dataset,
        ):
            _check_scene(path, dataset, imagery)
            yield dataset
    except ImageError as error:
        raise ImageError(path, re.sub(_IN_STREAM, lambda _: path.name, error.reason), error.fix) from None


@contextmanager
def open_scene_data(data: bytes, imagery: Imagery | None, path: Path) -> Iterator[Any]:
    """As `open_scene`, of a TIFF's bytes; `path` only names it in an ImageError."""
    from rasterio.io import MemoryFile

    # Its name inside GDAL ends as the file's does: GDAL then says the same of it as of a file on disk.
    with reading(path), _plain_tiff_is_fine(), MemoryFile(data, filename=path.name) as memory:
        inside = Path(memory.name)
        try:
            with reading(inside), memory.open(driver="GTiff") as dataset:
                _check_scene(path, dataset, imagery)
                yield dataset
        except ImageError as error:
            raise ImageError(path, error.reason, error.fix) from None


@contextmanager
def _plain_tiff_is_fine() -> Iterator[None]:
    """No warning of a TIFF without a place: it is then its own place."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What rasterio raises while reading `path` becomes an ImageError that names it."""
    from rasterio._err import CPLE_BaseError  # rasterio lets these through from GDAL and PROJ
    from rasterio.errors import CRSError, RasterioError

    try:
        yield
    except CRSError as error:  # no RasterioError
        reason = f"its coordinate system cannot be used: {_cause(error, path)}"
        raise ImageError(path, reason, "set the right CRS") from None
    except (RasterioError, CPLE_BaseError) as error:
        raise ImageError(path, f"truncated or corrupt: {_cause(error, path)}", "fetch it again or remove it") from None


def read_window(dataset: Any, imagery: Imagery, window: Any = None) -> Array:
    """One window (None: all) of a dataset from `open_scene`: (H, W, C) as stored, C-contiguous.

    Raises ImageError when a float raster holds NaN or infinite values that are not its declared nodata.
    """
    pixels = interleaved(dataset.read(window=window))
    check_finite(Path(dataset.name), pixels, imagery)
    return pixels


def check_finite(path: Path, pixels: Array, imagery: Imagery) -> None:
    """Raise ImageError when (H, W, C) float pixels hold infinity, or NaN that is not the declared nodata."""
    if pixels.dtype.kind != "f":
        return
    bad = ~np.isfinite(pixels)
    if imagery.nodata is not None and np.isnan(imagery.nodata):
        bad &= ~np.isnan(pixels)
    count = int(bad.any(axis=-1).sum())
    if count:
        fix = "repair it, or declare imagery.nodata: .nan if NaN means nodata"
        raise ImageError(path, f"has {count} pixels that are NaN or infinite", fix)


def nodata_mask(pixels: Array, nodata: float | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(H, W, C) as stored -> (H, W) bool, True where every band holds `nodata` (None: nowhere; NaN matches NaN)."""
    if nodata is None:
        return np.zeros(pixels.shape[:2], dtype=bool)
    equal = np.isnan(pixels) if np.isnan(nodata) else pixels == nodata
    return np.asarray(equal.all(axis=-1))


def to_unit(array: Array, imagery: Imagery, bands: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(H, W, C) as stored -> float32 (H, W, len(bands)) in [0, 1]: bands by name, times `imagery.scale`, clipped."""
    chosen = _choose(array, imagery, bands).astype(np.float32)
    chosen *= np.float32(imagery.scale)
    np.nan_to_num(chosen, copy=False, nan=0.0)
    return np.clip(chosen, 0.0, 1.0, out=chosen)


def to_uint8(array: Array, imagery: Imagery, bands: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, C) as stored -> uint8 (H, W, len(bands)): `to_unit` times 255, rounded half up.

    For uint8 imagery of scale 1/255 the pixels stay exactly what they were, and may share `array`'s memory.
    """
    chosen = _choose(array, imagery, bands)
    if chosen.dtype.kind == "f":
        unit = np.nan_to_num(np.clip(chosen.astype(np.float64) * imagery.scale, 0.0, 1.0), nan=0.0)
        return np.floor(unit * 255 + 0.5).astype(np.uint8)
    if chosen.dtype == np.uint8 and _is_picture(imagery.scale):
        return np.ascontiguousarray(chosen)  # most imagery is a picture already
    unsigned = chosen.view(np.uint16) if chosen.dtype == np.int16 else chosen
    picture: np.ndarray[Any, np.dtype[np.uint8]] = _table(str(chosen.dtype), imagery.scale).take(unsigned)
    return picture


def band_numbers(imagery: Imagery, bands: Sequence[str]) -> list[int]:
    """Where the named bands lie in the file, from 0; DataError when one is not declared."""
    declared = list(imagery.bands)
    missing = [band for band in bands if band not in declared]
    if missing:
        raise DataError(f"band {missing[0]} is asked for, imagery.bands declares {', '.join(declared)}")
    return [declared.index(band) for band in bands]


def _choose(array: Array, imagery: Imagery, bands: Sequence[str]) -> Array:
    numbers = band_numbers(imagery, bands)
    first = numbers[0] if numbers else 0
    if numbers == list(range(first, first + len(numbers))):  # a view is much faster than picking bands one by one
        return array[..., first : first + len(numbers)]
    return array[..., numbers]


@lru_cache(maxsize=32)
def _is_picture(scale: float) -> bool:
    """Whether bytes of this scale are the values of a picture as they are."""
    return np.array_equal(_table("uint8", scale), np.arange(256))


@lru_cache(maxsize=32)
def _table(dtype: str, scale: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 value of every stored integer; an int16 is looked up by its bits as uint16."""
    if dtype == "int16":
        stored = np.arange(65536, dtype=np.uint16).view(np.int16)
    else:
        stored = np.arange(int(np.iinfo(dtype).max) + 1, dtype=dtype)
    unit = np.clip(stored.astype(np.float64) * scale, 0.0, 1.0)
    return np.floor(unit * 255 + 0.5).astype(np.uint8)


def is_tiff(head: bytes) -> bool:
    """Whether bytes begin as a TIFF does."""
    return head.startswith(_TIFF_MAGIC)


def file_head(path: Path) -> bytes:
    """The first 16 bytes of a file; ImageError where it is missing, unreadable, empty or no regular file."""
    try:
        _file_bytes(path)
        with path.open("rb", 0) as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None


def picture_bytes(path: Path) -> bytes | None:
    """All bytes of a PNG or JPEG; None of a TIFF, which is read by what it holds. ImageError as of `read_image`."""
    try:
        size = _file_bytes(path)
        with path.open("rb", 0) as file:
            head = file.read(_HEAD_BYTES)
            if is_tiff(head):
                return None
            _check_picture(path, head)
            check_bytes(path, size)
            return head + file.readall()
    except OSError as error:
        raise unreadable(path, error) from None


def _file_bytes(path: Path) -> int:
    """How many bytes a regular file has that is not empty."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder", "name a file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageError(path, "not a regular file", "remove it")
    if status.st_size == 0:
        raise ImageError(path, "empty file", "fetch it again or remove it")
    return status.st_size


def unreadable(path: Path, error: OSError) -> ImageError:
    """What the system says of a file or folder, as its ImageError."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return ImageError(path, "no such file: a link to nothing", "restore what it points to, or remove it")
    if isinstance(error, FileNotFoundError):
        return ImageError(path, "no such file", "restore it")
    if isinstance(error, PermissionError):
        return ImageError(path, "not readable: permission denied", "give read permission")
    return ImageError(path, f"not readable: {(error.strerror or str(error)).lower()}", "check the disk and the link")


def may_pass(reason: str) -> bool:
    """Whether a reason that `unreadable` gives can be gone the next time, though the file is the same."""
    return "no such file" in reason or "not readable" in reason


def _check_picture(path: Path, head: bytes) -> None:
    if not head:
        raise ImageError(path, "empty file", "fetch it again or remove it")
    if not (is_jpeg(head) or is_png(head)):
        raise ImageError(path, "not a PNG, JPEG or TIFF image", "remove it or convert it")


def _check_tiff(path: Path, head: bytes) -> None:
    if not head:
        raise ImageError(path, "empty file", "fetch it again or remove it")
    if not is_tiff(head):
        raise ImageError(path, "not a TIFF image", "remove it or convert it to GeoTIFF")


def _check_scene(path: Path, dataset: Any, imagery: Imagery | None) -> None:
    if imagery is not None:
        _check_declared(path, dataset.count, _common_dtype(path, dataset.dtypes), imagery)
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        if height * width * np.dtype(dtype).itemsize * dataset.count <= MAX_FILE_BYTES:
            continue
        reason = f"is stored in blocks of {width}x{height} px, which are read whole"
        raise ImageError(path, reason, "rewrite it tiled (gdal_translate -co TILED=YES)")


def _level(overview: int | None) -> dict[str, int]:
    return {} if overview is None else {"overview_level": overview}


def _check_declared(path: Path, count: int, dtype: np.dtype[Any] | str, imagery: Imagery) -> None:
    if count != len(imagery.bands):
        names = ", ".join(imagery.bands)
        fix = "declare its bands in imagery.bands, or convert the file"
        raise ImageError(path, f"has {_bands(count)}, {len(imagery.bands)} declared ({names})", fix)
    if dtype != imagery.dtype:
        fix = "set imagery.dtype and imagery.scale, or convert the file"
        raise ImageError(path, f"is {dtype}, declared {imagery.dtype}", fix)


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise ImageError for an image too large to be read whole."""
    if width * height > MAX_PIXELS:
        fix = "cut it, or declare it as scenes"
        raise ImageError(path, f"has {width}x{height} px, more than {MAX_PIXELS:,}", fix)


def check_bytes(path: Path, size: int) -> None:
    """Raise ImageError for a file too large to be read whole."""
    if size > MAX_FILE_BYTES:
        raise ImageError(path, f"is {size:,} bytes, more than {MAX_FILE_BYTES:,}", "cut it, or declare it as scenes")


def _common_dtype(path: Path, dtypes: Sequence[str]) -> str:
    if not dtypes:
        raise ImageError(path, "has no band", "remove it")
    if len(set(dtypes)) > 1:
        raise ImageError(path, f"has bands of different types ({', '.join(dtypes)})", "convert the file to one type")
    return str(dtypes[0])


def _bands(count: int) -> str:
    return f"{count} band{'' if count == 1 else 's'}"


def _cause(error: BaseException, path: Path) -> str:
    """What GDAL said, on one line and without the path: the same words in every folder and on every machine."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()).replace(str(path), path.name)
    return text[:160] or type(error).__name__
