"""Decode PNG and JPEG strictly: exact bands and bit depth, no rotation by EXIF, and damage is always noticed.

The usual decoders are forgiving (grey fill for a cut JPEG, 16-bit colour PNG cut to 8 bits, partial PNG rows);
this file asks them to be exact.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import simplejpeg

Array = np.ndarray[Any, np.dtype[Any]]

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_FACTORS = (8, 4, 2)  # those between take longer than the whole image
_AGAIN = "fetch it again or remove it"


class PictureError(Exception):
    """Bytes that are no usable picture; the reader of a file turns it into an ImageError that names the file."""

    def __init__(self, reason: str, fix: str = _AGAIN) -> None:
        self.reason, self.fix = reason, fix
        super().__init__(reason, fix)


def is_jpeg(head: bytes) -> bool:
    """Whether bytes begin as a JPEG does."""
    return head.startswith(b"\xff\xd8\xff")


def is_png(head: bytes) -> bool:
    """Whether bytes begin as a PNG does."""
    return head.startswith(_PNG_MAGIC)


def decode_jpeg(data: bytes, max_pixels: int | None = None, enough_px: int | None = None) -> Array:
    """JPEG bytes -> uint8 (H, W, 1) or (H, W, 3) RGB, in stored orientation.

    With `enough_px` at a half, a quarter or an eighth of its size, the smallest whose shorter side is no shorter.
    Raises PictureError when the data is cut or damaged (libjpeg alone would fill in grey) or is CMYK.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if space in ("CMYK", "YCCK"):
            raise PictureError("is a CMYK JPEG, for print", "convert it to RGB")
        wanted = "GRAY" if space.lower() == "gray" else "RGB"
        factor = next((factor for factor in _FACTORS if enough_px and min(height, width) >= factor * enough_px), 1)
        # Accurate DCT and upsampling: the fast ones differ between processors.
        pixels = simplejpeg.decode_jpeg(
            data,
            colorspace=wanted,
            fastdct=False,
            fastupsample=False,
            strict=True,
            min_height=-(-height // factor),
            min_width=-(-width // factor),
        )
    except ValueError as error:
        raise PictureError(f"truncated or corrupt: {_lower(str(error))}") from None
    return np.asarray(pixels)


def decode_png(data: bytes, max_pixels: int | None = None) -> Array:
    """PNG bytes -> uint8 or uint16 (H, W, C), C = 1 grey, 2 grey + alpha, 3 RGB or 4 RGBA, exactly as stored.

    Raises PictureError for damage (every chunk's checksum is verified) and for palette or 1-4 bit images.
    """
    width, height, depth, colour = _check_chunks(data)
    _check_size(width, height, max_pixels)
    if colour == 3:
        raise PictureError("is a palette PNG (numbers of colours, not bands)", "convert it to RGB")
    if depth < 8:
        raise PictureError(f"is a {depth}-bit PNG", "convert it to 8 bits a band")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PictureError(f"truncated or corrupt: {_lower(str(error))}") from None
    if pixels is None:
        raise PictureError("truncated or corrupt: the PNG's pixel data cannot be decoded")
    if pixels.ndim == 2:
        return np.asarray(pixels)[..., np.newaxis]
    if colour == 4:  # OpenCV gives grey + alpha as B = G = R, alpha
        return np.ascontiguousarray(pixels[..., [0, 3]])
    order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(pixels, order))


def _check_chunks(data: bytes) -> tuple[int, int, int, int]:
    """Walk the PNG's chunks to its end; returns width, height, bit depth and colour type."""
    header: tuple[int, int, int, int] | None = None
    at = len(_PNG_MAGIC)
    while True:
        if at + 12 > len(data):
            raise PictureError("truncated or corrupt: the PNG ends early")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise PictureError("truncated or corrupt: the PNG ends early")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise PictureError("truncated or corrupt: a PNG checksum is wrong")
        if kind == b"IHDR" and length == 13:
            header = struct.unpack_from(">IIBB", data, at + 8)
        if kind == b"IEND":
            break
        at = end
    if header is None or not (header[0] and header[1]):
        raise PictureError("truncated or corrupt: the PNG has no header")
    return header


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise PictureError(f"has {width}x{height} px, more than {max_pixels:,}", "cut it, or declare it as scenes")


def _lower(message: str) -> str:
    text = " ".join(message.split())[:160]
    return text[:1].lower() + text[1:]
