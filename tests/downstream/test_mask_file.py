"""Masks are read as they are stored, whatever the depth, sign and photometric of the picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from gfm.downstream.classes import IGNORED
from gfm.downstream.formats.mask_file import read_class_ids, read_mask
from gfm.imagery.raster import ImageError
from gfm.params import ImageMasks

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)

IDS = np.tile(np.array([0, 1, 2, 3], np.uint8), (8, 4))  # 8 x 16 px


def _tiff(path: Path, values: np.ndarray, bands: int = 1, **profile: Any) -> Path:
    """The same values in every band."""
    size = {"height": values.shape[0], "width": values.shape[1], "count": bands, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **profile) as file:
        for band in range(1, bands + 1):
            file.write(values, band)
    return path


def _masks(**data: Any) -> ImageMasks:
    plain = {"format": "image-masks", "root": "r", "split": {"val_share": 0.1, "test_share": 0.1}}
    return ImageMasks.model_validate(plain | data)


@pytest.mark.parametrize("colour", [cv2.COLOR_GRAY2BGR, cv2.COLOR_GRAY2BGRA, None])
def test_a_16_bit_png_keeps_its_values(tmp_path, colour):
    """Its channels were cut to their high bytes: 1 to 255 became 0, 300 became 1."""
    values = IDS.astype(np.uint16) * 300 + 1
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), values if colour is None else cv2.cvtColor(values, colour))
    read = read_mask(path)
    assert read.dtype == np.uint16 and np.array_equal(read, values)


def test_a_16_bit_grey_png_with_alpha_keeps_its_values(tmp_path):
    """Made by hand: neither Pillow nor OpenCV writes one."""
    pixels = np.dstack([IDS.astype(np.uint16) * 300, np.full(IDS.shape, 7, np.uint16)]).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", IDS.shape[1], IDS.shape[0], 16, 4, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path = tmp_path / "mask.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert np.array_equal(read_mask(path), IDS.astype(np.uint16) * 300)


def test_a_16_bit_png_of_colours_or_damage_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    ids = IDS.astype(np.uint16)
    cv2.imwrite(str(path), np.dstack([ids, ids, ids + 1]))  # the same in their high bytes
    with pytest.raises(ImageError, match=r"mask\.png: is a colour picture, not class ids; save it with one channel"):
        read_mask(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match="truncated or corrupt: the PNG ends early"):
        read_mask(path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64"])
@pytest.mark.parametrize("profile", [{}, {"photometric": "MINISWHITE"}])
def test_a_tiff_of_any_whole_numbers_is_read_as_stored(tmp_path, dtype, profile):
    """MinIsWhite came inverted, 64-bit values were called no readable picture."""
    values = IDS.astype(dtype)
    values[0, 0], values[0, 1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    assert np.array_equal(read_mask(_tiff(tmp_path / "mask.tif", values, **profile)), values)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64"])
def test_a_negative_value_is_refused_until_it_is_ignored(tmp_path, dtype):
    """An int8 of -1 was read as 255, and so as foreground."""
    path = _tiff(tmp_path / "mask.tif", np.where(IDS == 3, -1, IDS.astype(dtype)))
    declared = _masks(foreground="above-zero")
    with pytest.raises(ImageError, match=r"holds the value -1, which is no class; name it in k\.ignore"):
        read_class_ids(path, declared, "k")
    ids = read_class_ids(path, _masks(foreground="above-zero", ignore=[-1]), "k")
    assert ids[0, :4].tolist() == [0, 1, 1, IGNORED]


@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_are_not_stretched(tmp_path, bits, photometric):
    values = np.minimum(IDS, 2**bits - 1)
    assert np.array_equal(read_mask(_tiff(tmp_path / "mask.tif", values, nbits=bits, photometric=photometric)), values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "RGBX", "P", "I;16", "I"])
def test_a_tiff_of_any_grey_or_palette_mode_is_read(tmp_path, mode):
    path = tmp_path / "mask.tif"
    if mode == "P":
        picture = Image.fromarray(IDS, "P")
        picture.putpalette([9, 8, 7, 200, 10, 30, 1, 2, 3, 4, 5, 6])
    else:
        picture = Image.fromarray(IDS * 255 if mode == "1" else IDS).convert(mode)
    picture.save(path)
    assert np.array_equal(read_mask(path), IDS > 0 if mode == "1" else IDS)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_tiff_in_colours_of_print_or_video_is_refused_though_grey(tmp_path, mode):
    path = tmp_path / "mask.tif"
    Image.fromarray(IDS).convert(mode).save(path)
    with pytest.raises(ImageError, match="is a colour picture, not class ids"):
        read_mask(path)


def test_a_tiff_of_16_bit_colours_keeps_its_values_and_a_second_band_is_no_alpha_unless_it_says_so(tmp_path):
    values = IDS.astype(np.uint16) * 300
    assert np.array_equal(read_mask(_tiff(tmp_path / "rgb.tif", values, 3, photometric="RGB")), values)
    path = tmp_path / "two.tif"
    for alpha in ("YES", "NO"):
        _tiff(path, values, 2, alpha=alpha)
        with rasterio.open(path, "r+") as file:
            file.write(np.full_like(values, 65535), 2)
        if alpha == "YES":
            assert np.array_equal(read_mask(path), values)
        else:
            with pytest.raises(ImageError, match="save it with one channel"):
                read_mask(path)


@pytest.mark.parametrize(
    ("bands", "dtype", "profile", "told"),
    [
        (1, "float64", {}, "holds float64 values, a mask holds class ids; save it as 8-bit"),
        (5, "uint8", {}, "is a colour picture, not class ids; save it with one channel"),
        (3, "uint8", {"compress": "webp"}, "is a WEBP, whose values are not exact; save it as PNG or TIFF"),
        (3, "uint8", {"compress": "jpeg", "photometric": "YCBCR"}, "is a JPEG, whose values are not exact"),
    ],
)
def test_a_tiff_that_is_no_mask_is_refused_by_what_it_is(tmp_path, bands, dtype, profile, told):
    with pytest.raises(ImageError, match=rf"mask\.tif: {told}"):
        read_mask(_tiff(tmp_path / "mask.tif", IDS.astype(dtype), bands, **profile))
