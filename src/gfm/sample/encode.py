"""File formats of the sample, as bytes: TIFF and PNG written here, so that no library version can change them.

TIFFs are little-endian, uncompressed, one strip, without software tags. PNGs hold stored (uncompressed) deflate
blocks, because zlib and zlib-ng compress to different bytes. JPEGs come from libjpeg-turbo with the accurate
integer transform, which gives the same bits on every processor.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_STORED_BLOCK = 65535  # the longest stored deflate block


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a raster lies: UTM easting and northing (m) of its upper left corner, pixel side (m), EPSG code."""

    epsg: int
    west_m: int
    north_m: int
    pixel_m: float


def jpeg(image: npt.NDArray[np.uint8], quality: int = 86) -> bytes:
    """RGB (H,W,3) or grey (H,W,1) uint8 as JPEG."""
    colourspace, subsampling = ("GRAY", "Gray") if image.shape[2] == 1 else ("RGB", "420")
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(image),
            quality=quality,
            colorspace=colourspace,
            colorsubsampling=subsampling,
            fastdct=False,
        )
    )


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Grey (H,W) uint8 as PNG."""
    height, width = image.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter type, 0
    rows[:, 1:] = image
    raw = rows.tobytes()
    stream = bytearray(b"\x78\x01")
    for start in range(0, len(raw), _STORED_BLOCK):
        part = raw[start : start + _STORED_BLOCK]
        last = start + _STORED_BLOCK >= len(raw)
        stream += struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part
    stream += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(stream)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiff(image: Pixels, grid: Grid | None = None, nodata: int | None = None) -> bytes:
    """(H,W) or (H,W,C) uint8 or uint16 as TIFF, with GeoTIFF tags where a grid is given."""
    stored = image[:, :, None] if image.ndim == 2 else image
    height, width, bands = stored.shape
    colour = bands >= 3 and stored.dtype == np.uint8
    beyond = bands - 3 if colour else bands - 1  # bands that the photometric interpretation does not name
    body = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    tags: list[tuple[int, str, tuple[int | float, ...] | bytes]] = [
        (256, "I", (width,)),
        (257, "I", (height,)),
        (258, "H", (stored.dtype.itemsize * 8,) * bands),
        (259, "H", (1,)),
        (262, "H", (2 if colour else 1,)),
        (273, "I", (8,)),
        (277, "H", (bands,)),
        (278, "I", (height,)),
        (279, "I", (len(body),)),
        (284, "H", (1,)),
    ]
    if beyond:
        tags.append((338, "H", (0,) * beyond))
    if grid is not None:
        keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, grid.epsg)  # projected, pixel is area, EPSG
        tags += [
            (33550, "d", (float(grid.pixel_m), float(grid.pixel_m), 0.0)),
            (33922, "d", (0.0, 0.0, 0.0, float(grid.west_m), float(grid.north_m), 0.0)),
            (34735, "H", keys),
        ]
    if nodata is not None:
        tags.append((42113, "s", f"{nodata}\0".encode()))
    return _tiff_file(body, tags)


def _tiff_file(body: bytes, tags: list[tuple[int, str, tuple[int | float, ...] | bytes]]) -> bytes:
    """Header, pixels from byte 8, directory, then the values that do not fit into a directory entry."""
    codes = {"s": 2, "H": 3, "I": 4, "d": 12}
    padding = b"\0" * (len(body) % 2)
    directory_at = 8 + len(body) + len(padding)
    values_at = directory_at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, kind, content in tags:
        data = content if isinstance(content, bytes) else struct.pack(f"<{len(content)}{kind}", *content)
        if len(data) <= 4:
            where = data.ljust(4, b"\0")
        else:
            where = struct.pack("<I", values_at + len(values))
            values += data + b"\0" * (len(data) % 2)
        entries += struct.pack("<HHI", tag, codes[kind], len(content)) + where
    return (
        struct.pack("<2sHI", b"II", 42, directory_at)
        + body
        + padding
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", 0)
        + values
    )
