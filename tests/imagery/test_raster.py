"""Files are read exactly as declared, and every way of differing has its own reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image

from gfm.errors import DataError
from gfm.imagery import raster
from gfm.imagery.raster import ImageError, nodata_mask, read_image, to_uint8, to_unit
from gfm.params import Imagery

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

RGB = Imagery()
Pixels = np.ndarray[Any, np.dtype[Any]]


def picture(height: int = 60, width: int = 80, bands: int = 3) -> Pixels:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, bands), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height))).reshape(height, width, bands)


def write_tiff(path: Path, pixels: Pixels, **options: Any) -> None:
    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": pixels.dtype} | options
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_colours_come_in_the_declared_order_from_every_format(tmp_path: Path) -> None:
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 200
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(red).save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name, RGB).astype(int) - red).max() <= 2, name


def test_the_content_says_what_a_file_is_not_its_suffix(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", RGB).shape == (60, 80, 3)


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"ENDIANNESS": "BIG"}, {"tiled": True}])
def test_a_tiff_keeps_its_values_in_either_byte_order(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = picture(64, 64, 5).astype(np.uint16) * 40
    extra = {"blockxsize": 32, "blockysize": 32} if "tiled" in options else {}
    write_tiff(tmp_path / "a.tif", pixels, **options, **extra)
    imagery = Imagery(dtype="uint16", bands=dict.fromkeys("ABCDE"))
    assert np.array_equal(read_image(tmp_path / "a.tif", imagery), pixels)


def test_a_photo_is_not_turned_by_its_exif_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.jpg", RGB).shape == (60, 80, 3)
    assert read_image(tmp_path / "a.png", RGB).shape == (60, 80, 3)


def test_16_bit_colour_is_not_cut_to_8_bits(tmp_path: Path) -> None:
    pixels = picture().astype(np.uint16) * 257 - 3
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "a.png", Imagery(dtype="uint16")), pixels)
    with pytest.raises(ImageError, match="is uint16, declared uint8"):
        read_image(tmp_path / "a.png", RGB)


@pytest.mark.parametrize("cut", [3, 60, 0.3, 0.9, -2])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_truncated_file_is_never_filled_up_with_grey(tmp_path: Path, name: str, cut: float) -> None:
    path = tmp_path / name
    if name == "a.tif":
        write_tiff(path, picture(), compress="deflate")
    else:
        Image.fromarray(picture()).save(path)
    damage(path, lambda data: data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    with pytest.raises(ImageError) as caught:
        read_image(path, RGB)
    assert caught.value.reason.startswith(("truncated or corrupt: ", "not a PNG")), caught.value.reason


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    damage(tmp_path / "a.png", lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(ImageError, match="a PNG checksum is wrong"):
        read_image(tmp_path / "a.png", RGB)


@pytest.mark.parametrize(
    ("mode", "name", "reason"),
    [
        ("L", "a.png", "has 1 band, 3 declared (R, G, B)"),
        ("LA", "a.png", "has 2 bands, 3 declared (R, G, B)"),
        ("RGBA", "a.png", "has 4 bands, 3 declared (R, G, B)"),
        ("L", "a.jpg", "has 1 band, 3 declared (R, G, B)"),
        ("RGBA", "a.tif", "has 4 bands, 3 declared (R, G, B)"),
        ("P", "a.png", "is a palette PNG (numbers of colours, not bands)"),
        ("1", "a.png", "is a 1-bit PNG"),
        ("CMYK", "a.jpg", "is a CMYK JPEG, for print"),
    ],
)
def test_other_bands_than_declared_are_refused_by_name(tmp_path: Path, mode: str, name: str, reason: str) -> None:
    Image.fromarray(picture()).convert(mode).save(tmp_path / name)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / name, RGB)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{tmp_path / name}: {reason}; ")
    assert "\n" not in str(caught.value)


def test_a_user_learns_what_kind_of_wrong_each_path_is(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.png").write_text("<html>")
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {}
    for name in ("empty.png", "page.png", "pipe.png", "absent.png", "."):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name, RGB)
        reasons[name] = caught.value.reason
    assert reasons == {
        "empty.png": "empty file",
        "page.png": "not a PNG, JPEG or TIFF image",
        "pipe.png": "not a regular file",
        "absent.png": "no such file",
        ".": "is a folder",
    }


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # the tests may run as root, who may read anything
        raise PermissionError(13, "Permission denied")

    Image.fromarray(picture()).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="not readable: permission denied"):
        read_image(tmp_path / "a.png", RGB)


def test_a_decompression_bomb_is_an_error_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", 4799)
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(picture()).save(tmp_path / name)
        with pytest.raises(ImageError, match="has 80x60 px, more than 4,799"):
            read_image(tmp_path / name, RGB)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_an_error(tmp_path: Path, value: float) -> None:
    pixels = np.full((20, 20, 1), 0.5, np.float32)
    pixels[3, :2] = value
    write_tiff(tmp_path / "a.tif", pixels)
    with pytest.raises(ImageError, match="has 2 pixels that are NaN or infinite"):
        read_image(tmp_path / "a.tif", Imagery(dtype="float32", bands={"x": None}, scale=1))


def test_nan_may_be_declared_as_nodata(tmp_path: Path) -> None:
    pixels = np.full((20, 20, 1), 0.5, np.float32)
    pixels[3, :2] = np.nan
    write_tiff(tmp_path / "a.tif", pixels)
    imagery = Imagery(dtype="float32", bands={"x": None}, scale=1, nodata=float("nan"))
    read = read_image(tmp_path / "a.tif", imagery)
    assert nodata_mask(read, imagery.nodata).sum() == 2
    assert to_unit(read, imagery, ["x"])[3, 0, 0] == 0
    assert to_uint8(read, imagery, ["x"])[3, 0, 0] == 0


def test_nodata_is_only_where_every_band_has_it() -> None:
    pixels = np.array([[[0, 0], [0, 9], [9, 9]]], np.uint8)
    assert nodata_mask(pixels, 0).tolist() == [[True, False, False]]
    assert not nodata_mask(pixels, None).any()


def test_8_bit_pictures_stay_exactly_what_they_were() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(to_uint8(pixels, RGB, ["R", "G", "B"]), pixels)


def test_stored_values_are_scaled_clipped_and_rounded_half_up() -> None:
    imagery = Imagery(dtype="uint16", bands={"B04": None, "B03": None}, scale=1 / 510)
    pixels = np.array([[[0, 1], [3, 510], [511, 65535]]], np.uint16)
    assert to_uint8(pixels, imagery, ["B03", "B04"])[0].tolist() == [[1, 0], [255, 2], [255, 255]]
    assert to_unit(pixels, imagery, ["B04"])[0, :, 0].tolist() == pytest.approx([0, 3 / 510, 1])


def test_signed_values_below_zero_are_black() -> None:
    imagery = Imagery(dtype="int16", bands={"x": None}, scale=1 / 255)
    pixels = np.array([[[-9999], [-1], [0], [100], [32767]]], np.int16)
    assert to_uint8(pixels, imagery, ["x"]).ravel().tolist() == [0, 0, 0, 100, 255]


def test_an_unknown_band_is_named() -> None:
    with pytest.raises(DataError, match=r"band NIR is asked for, imagery\.bands declares R, G, B"):
        to_uint8(picture(), RGB, ["NIR"])
