"""The work done on one file of a source: look at its images (first pass), and encode the kept ones (second pass).

Both are plain functions of picklable arguments, so that they run in worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gfm.errors import DataError
from gfm.geopile.quality import measure, verdict
from gfm.geopile.quarantine import Dropped, Refusal
from gfm.geopile.row import Row
from gfm.geopile.shards import JPEG_MAX_SIDE, encode
from gfm.geopile.sources import Tile, cuts_tiles, read_tiles
from gfm.imagery.footprint import ground_block
from gfm.imagery.hashing import dhash, pixel_hash
from gfm.imagery.pictures import is_jpeg, is_png
from gfm.imagery.raster import NOT_UTF8, Array, ImageError, nodata_mask, readable_name, to_uint8
from gfm.params import Geopile, Params, Source


@dataclass(frozen=True)
class Job:
    """One file of a source; `only` names the images to look at, where the source has a limit."""

    source: str
    file: str  # relative to the source's root
    only: frozenset[str] | None = None


class Findings(NamedTuple):
    """What a file holds."""

    rows: list[Row]
    dropped: list[Dropped]
    refusal: Refusal | None


class Encoded(NamedTuple):
    """One image, ready for a shard."""

    data: bytes
    suffix: str


def inspect(params: Params, jobs: Sequence[Job]) -> list[Findings]:
    """Decode, judge and hash the images of a few files; a file that fails in any part is refused as a whole."""
    return [_inspect(params, job) for job in jobs]


def encode_rows(params: Params, rows: Sequence[Row]) -> list[Encoded]:
    """Read the images of a few rows again and encode them, in the order of the rows.

    Raises DataError when a file is no longer what the first pass saw.
    """
    files = groupby(rows, key=lambda row: (row.source, row.file))
    return [encoded for _, group in files for encoded in _encode_file(params, list(group))]


def _encode_file(params: Params, rows: Sequence[Row]) -> list[Encoded]:
    geopile = params.geopile
    source = geopile.sources[rows[0].source]
    wanted = {row.id.removeprefix(f"{row.source}/"): row for row in rows}
    file = _relative_to(source, rows[0].file)
    root = params.paths.raw.path / source.root
    found: dict[str, Encoded] = {}
    try:
        for tile in read_tiles(source, root, file, geopile.tile_px, frozenset(wanted)):
            image = to_uint8(tile.pixels, source.imagery, source.stored_bands(geopile.bands))
            if pixel_hash(image) != wanted[tile.name].pixel_hash:
                raise ImageError(root / file, "changed while the collection was being built")
            original = _original(source, root / file, tile.pixels, image)
            found[tile.name] = original or Encoded(*encode(image, geopile.jpeg_quality))
    except ImageError as error:
        raise DataError(
            f"{error.path}: {error.reason}, after it had been read once; run `gfm assemble` again"
        ) from None
    return [found[name] for name in wanted]


def _inspect(params: Params, job: Job) -> Findings:
    geopile = params.geopile
    source = geopile.sources[job.source]
    root = params.paths.raw.path / source.root
    shown = _relative_to_raw(source, job.file)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    if readable_name(shown) != shown:
        return Findings([], [], Refusal(job.source, readable_name(shown), NOT_UTF8))
    try:
        for tile in read_tiles(source, root, job.file, geopile.tile_px, job.only):
            row = _row(job.source, source, geopile, tile, shown, params.splits.block_km)
            if max(row.width, row.height) > JPEG_MAX_SIDE:
                raise ImageError(root / job.file, f"has {row.width}x{row.height} px, a side over {JPEG_MAX_SIDE:,}")
            reason = verdict(row, geopile.quality)
            if reason is None:
                rows.append(row)
            else:
                dropped.append(Dropped(job.source, row.id, reason))
    except ImageError as error:
        part = "" if error.path == root / job.file else f"{error.path.name}: "
        return Findings([], [], Refusal(job.source, shown, f"{part}{error.reason}"))
    return Findings(rows, dropped, None)


def _row(name: str, source: Source, geopile: Geopile, tile: Tile, file: str, block_km: float) -> Row:
    image = to_uint8(tile.pixels, source.imagery, source.stored_bands(geopile.bands))
    nodata = nodata_mask(tile.pixels, tile.nodata)
    # Neighbouring tiles share their ground: without coordinates the whole file is one place.
    place = ground_block(tile.bounds, block_km) if tile.bounds else f"{name}/{_relative_to(source, file)}"
    return Row(
        id=f"{name}/{tile.name}",
        source=name,
        place=place,
        file=file,
        label=tile.label,
        width=image.shape[1],
        height=image.shape[0],
        gsd_m=None if tile.gsd_m is None else round(tile.gsd_m, 4),
        crs=tile.crs,
        date=tile.date,
        **measure(image, nodata)._asdict(),
        nodata_share=round(float(nodata.mean()), 4),
        pixel_hash=pixel_hash(image),
        dhash=dhash(image),
        bounds=tile.bounds,
    )


def _original(source: Source, path: Path, pixels: Array, image: Array) -> Encoded | None:
    """The file's own bytes, where it is a PNG or JPEG whose stored pixels are already the picture."""
    if cuts_tiles(source) or pixels.shape != image.shape or not np.array_equal(pixels, image):
        return None
    data = path.read_bytes()
    if is_jpeg(data):
        return Encoded(data, ".jpg")
    return Encoded(data, ".png") if is_png(data) else None


def _relative_to_raw(source: Source, file: str) -> str:
    return (Path(source.root) / file).as_posix()


def _relative_to(source: Source, file: str) -> str:
    return Path(file).relative_to(source.root).as_posix()
