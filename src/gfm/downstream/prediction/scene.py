"""An image that is to be predicted: a GeoTIFF read by windows, a picture, or a folder with a GeoTIFF a band."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.formats.format import is_folder
from gfm.imagery.band_files import find_bands, of_bands, open_bands
from gfm.imagery.geotiff import Place
from gfm.imagery.hashing import file_hash
from gfm.imagery.raster import (
    NOT_UTF8,
    Array,
    ImageError,
    decode_picture,
    nodata_mask,
    open_scene,
    picture_bytes,
    read_window,
    readable_name,
    to_uint8,
    unreadable,
)
from gfm.params import Imagery

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int, int]  # x, y, width, height

OFF_PX = 0.5  # that the corners of two dates may lie apart


@dataclass(frozen=True, slots=True)
class Scene:
    """An open image; `imagery` declares the stored bands that `stored` gives of a window inside it, (H, W, C)."""

    path: Path
    imagery: Imagery  # its nodata is the declared one, else what the file says
    bands: tuple[str, ...]  # that the model takes, in its order
    place: Place
    stored: Callable[[Window], Array]
    masked: Callable[[Window], Mask] | None = None  # what a mask inside the file leaves out
    files: tuple[Path, ...] = ()  # of a folder

    def look(self, window: Window) -> tuple[Pixels, Mask]:
        """A window as the model's images are, (height, width, bands) uint8, and what of it is nodata (`lacking`).

        Where the window reaches beyond the scene's right or lower edge, the scene is mirrored there.
        """
        x, y, width, height = window
        inside = (x, y, min(width, self.place.width - x), min(height, self.place.height - y))
        stored = self.stored(inside)
        pixels, lacking = to_uint8(stored, self.imagery, self.bands), self._lacking(stored, inside)
        if inside == window:
            return pixels, lacking
        beyond = [(0, height - inside[3]), (0, width - inside[2])]
        return np.pad(pixels, [*beyond, (0, 0)], mode="reflect"), np.pad(lacking, beyond, mode="reflect")

    def lacking(self, window: Window) -> Mask:
        """(height, width) of a window inside the scene: True where every band is nodata, or the file's mask says so."""
        return self._lacking(self.stored(window), window)

    def _lacking(self, stored: Array, window: Window) -> Mask:
        lacking = nodata_mask(stored, self.imagery.nodata)
        return lacking if self.masked is None else lacking | self.masked(window)

    def content(self) -> str:
        """Hash of the bytes of its files."""
        files = self.files or (self.path,)
        try:
            return file_hash(files)
        except OSError as error:
            raise unreadable(self.path, error) from None


@contextmanager
def opened(path: Path, imagery: Imagery, bands: Sequence[str]) -> Iterator[Scene]:
    """The image at `path`; ImageError where it is not as `imagery` declares, also inside the `with` block."""
    if readable_name(str(path)) != str(path):
        raise ImageError(readable_name(str(path)), NOT_UTF8, "rename it")
    if is_folder(path):
        with _band_folder(path, imagery, bands) as scene:
            yield scene
        return
    encoded = picture_bytes(path)
    if encoded is None:
        with open_scene(path, imagery) as dataset:
            yield _of_dataset(path, dataset, imagery, bands)
        return
    picture = decode_picture(encoded, imagery, path)
    height, width = picture.shape[:2]

    def part(window: Window) -> Array:
        x, y, wide, high = window
        return picture[y : y + high, x : x + wide]

    yield Scene(path, imagery, tuple(bands), Place(width, height), part)


def is_band_folder(path: Path, imagery: Imagery) -> bool:
    """Whether a folder holds just one GeoTIFF for each declared band."""
    try:
        find_bands(path, imagery)
    except ImageError:
        return False
    return True


def check_same_ground(first: Scene, other: Scene) -> None:
    """ImageError where another date is not of the first one's size and, where both say so, ground."""
    here, there = first.place, other.place
    if (there.width, there.height) != (here.width, here.height):
        reason = f"is {there.width}x{there.height} px, {first.path.name} is {here.width}x{here.height}"
        raise ImageError(other.path, reason, "cut both dates to one grid")
    if here.transform is None or there.transform is None:
        return
    apart = ~here.transform @ there.transform
    corners = [(x, y) for x in (0, here.width) for y in (0, here.height)]
    off = max(abs(a - b) for corner in corners for a, b in zip(apart @ corner, corner, strict=True))
    if here.crs != there.crs or off > OFF_PX:
        raise ImageError(other.path, f"covers other ground than {first.path.name}", "cut both dates to one grid")


def _of_dataset(path: Path, dataset: Any, imagery: Imagery, bands: Sequence[str]) -> Scene:
    from rasterio.enums import MaskFlags

    own = _with_nodata(imagery, dataset.nodata)

    def stored(window: Window) -> Array:
        return read_window(dataset, own, _rasterio(window))

    def masked(window: Window) -> Mask:
        return np.asarray(dataset.read_masks(1, window=_rasterio(window)) == 0)

    has_mask = MaskFlags.per_dataset in dataset.mask_flag_enums[0] and MaskFlags.alpha not in dataset.mask_flag_enums[0]
    return Scene(path, own, tuple(bands), Place.of(dataset), stored, masked if has_mask else None)


@contextmanager
def _band_folder(path: Path, imagery: Imagery, bands: Sequence[str]) -> Iterator[Scene]:
    files = find_bands(path, imagery)
    with open_bands(files, imagery, bands) as stack:
        own = of_bands(_with_nodata(imagery, stack.first.nodata), bands)
        place = Place.of(stack.first)
        yield Scene(path, own, tuple(bands), place, lambda w: stack.read(_rasterio(w)), files=tuple(files))


def _with_nodata(imagery: Imagery, said: float | None) -> Imagery:
    return imagery if imagery.nodata is not None or said is None else imagery.model_copy(update={"nodata": said})


def _rasterio(window: Window) -> Any:
    from rasterio.windows import Window as RasterioWindow

    return RasterioWindow(*window)
