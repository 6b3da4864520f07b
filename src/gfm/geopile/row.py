"""One image of the collection, as the stages of its assembly hand it on.

No pyarrow, so that workers start fast; a tuple, which passes between processes in a quarter of a dataclass's time.
"""

from __future__ import annotations

from typing import NamedTuple

from gfm.imagery.footprint import Bounds, Transform


class Row(NamedTuple):
    """One usable image; `pixel_hash` and `dhash` are of the picture before a tile is encoded as JPEG."""

    id: str  # SOURCE/relative/path, plus `#x,y` for tiles
    source: str
    place: str  # images of one place are never divided between splits
    file: str  # relative to paths.raw
    label: str | None
    width: int
    height: int
    gsd_m: float | None
    crs: str | None
    date: str | None
    entropy_bits: float
    contrast: float
    sharpness: float
    nodata_share: float
    cloud_share: float | None  # None where the source declares no mask
    pixel_hash: str
    dhash: str
    bounds: Bounds | None
    own_size: int | None = None  # bytes of the source's file, where the collection keeps them as they are
    own_hash: str | None = None  # of these bytes
    transform: Transform | None = None  # of its pixels, in `crs`
    labels: tuple[str, ...] | None = None  # where an image has several, beside its scene class
