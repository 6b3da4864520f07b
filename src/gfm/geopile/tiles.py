"""The work done on one file of a source: look at its images (first pass), and encode the kept ones (second pass).

Both are plain functions of picklable arguments, so that they run in worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import xxhash

from gfm.errors import DataError
from gfm.geopile.archives import path_of
from gfm.geopile.quality import measure
from gfm.geopile.quarantine import Refusal
from gfm.geopile.row import Row
from gfm.geopile.shards import JPEG_MAX_SIDE, Encoded, Packed, encode, pack
from gfm.geopile.sources import ArchiveEnd, Member, Tile, is_archive, member_tile, read_pixels, read_tiles
from gfm.geopile.sources.folder import folder_of
from gfm.imagery.footprint import ground_block
from gfm.imagery.hashing import dhash, grey, pixel_hash
from gfm.imagery.pictures import is_jpeg, is_png
from gfm.imagery.raster import NOT_UTF8, Array, ImageError, nodata_mask, readable_name, to_uint8
from gfm.imagery.store_size import coarser, fitted, fitted_size
from gfm.params import Params, Source

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Job:
    """One file of a source, or one image of an archive; `only` names the images to look at, where there is a limit."""

    source: str
    file: str  # relative to the source's root
    only: frozenset[str] | None = None
    part: Member | ArchiveEnd | None = None  # of the archive `file`, read already
    share: float = 1.0  # of the file, for progress

    @property
    def carried(self) -> int:
        """How many bytes come with it."""
        return len(self.part.data or b"") if isinstance(self.part, Member) else 0


class Kept(NamedTuple):
    """One image to encode; `member` holds its bytes where `row.file` is an archive."""

    row: Row
    member: Member | None = None

    @property
    def carried(self) -> int:
        """How many bytes come with it."""
        return len(self.member.data or b"") if self.member else 0


class Findings(NamedTuple):
    """What a file, or one image of an archive, holds."""

    rows: list[Row]
    refusal: Refusal | None
    ignored: dict[str, int]  # how many files of an archive are no images, by kind; told at its end
    share: float  # of the file, for progress


class ChangedError(DataError):
    """A file is no longer what the first pass saw; `image` is the id of one image in it."""

    def __init__(self, message: str, image: str) -> None:
        self.image = image
        super().__init__(message, image)

    def __str__(self) -> str:
        return str(self.args[0])


def inspect(params: Params, jobs: Sequence[Job]) -> list[Findings]:
    """Decode, measure and hash the images of a few files; a file that fails in any part is refused as a whole.

    Nothing is judged here: what is found holds whatever the limits of quality are.
    """
    return [_inspect(params, job) for job in jobs]


def encode_images(params: Params, images: Sequence[Kept]) -> Packed:
    """Read a few images again, those of archives from their bytes, and pack them for a shard, in the order given.

    Raises ChangedError when a file is no longer what the first pass saw.
    """
    files = groupby(images, key=lambda image: (image.row.source, image.row.file))
    return pack(encoded for _, group in files for encoded in _encode_file(params, list(group)))


def file_of(source: Source, row: Row) -> str:
    """The file of a row relative to its source's root, as jobs name it."""
    return row.file.removeprefix(_below(source.root))


def tile_name_of(row: Row) -> str:
    """The name of a row's tile, as sources name it."""
    return row.id.removeprefix(f"{row.source}/")


def _inspect(params: Params, job: Job) -> Findings:
    source = params.geopile.sources[job.source]
    file = _below(source.root) + job.file
    if readable_name(file) != file:
        return Findings([], Refusal(job.source, readable_name(file), NOT_UTF8), {}, job.share)
    if isinstance(job.part, ArchiveEnd):
        refusal = Refusal(job.source, file, job.part.reason) if job.part.reason else None
        return Findings([], refusal, job.part.ignored, job.share)
    rows: list[Row] = []
    refusal = None
    try:
        for tile in _tiles(params, job):
            row = _row(params, job, tile, file)
            if max(row.width, row.height) > JPEG_MAX_SIDE:
                raise ImageError(_path(params, job), f"has {row.width}x{row.height} px, a side over {JPEG_MAX_SIDE:,}")
            rows.append(row)
    except ImageError as error:
        rows, path = [], _path(params, job)
        part = "" if error.path == path else f"{error.path.name}: "
        shown = file if job.part is None else f"{file}!{job.part.name}"
        refusal = Refusal(job.source, shown, f"{part}{error.reason}")
    return Findings(rows, refusal, {}, job.share)


def _path(params: Params, job: Job) -> Path:
    path = _root(params.paths.raw, params.geopile.sources[job.source].root) / job.file
    return path if job.part is None or isinstance(job.part, ArchiveEnd) else path_of(path, job.part.name)


# A Path made for every use of a file took a fifth of a JPEG's time; so the parts that do not change are made once.
@lru_cache(maxsize=32)
def _root(raw: str, root: str) -> Path:
    return Path(raw, root)


@lru_cache(maxsize=32)
def _below(root: str) -> str:
    """What a source's root puts before the names of its files."""
    path = PurePosixPath(root).as_posix()
    return "" if path == "." else f"{path}/"


def _tiles(params: Params, job: Job) -> Iterator[Tile]:
    source = params.geopile.sources[job.source]
    root = _root(params.paths.raw, source.root)
    if is_archive(source) and isinstance(job.part, Member):
        return iter([member_tile(source, root, job.file, job.part)])
    return read_tiles(source, root, job.file, params.geopile.tile_px, job.only)


def _row(params: Params, job: Job, tile: Tile, file: str) -> Row:
    source = params.geopile.sources[job.source]
    image = to_uint8(tile.pixels, source.imagery, source.stored_bands(params.geopile.bands))
    nodata = None if tile.nodata is None else nodata_mask(tile.pixels, tile.nodata)
    height, width = fitted_size(image.shape[0], image.shape[1], params.geopile.store_px)
    if tile.bounds:
        place = ground_block(tile.bounds, params.splits.block_km)
    else:  # neighbouring tiles share their ground: without coordinates the whole scene is one place
        place = f"{job.source}/{job.file if tile.whole is None else tile.name}"
    own = _original(tile, image, params.geopile.store_px)
    levels = grey(image)[..., np.newaxis]  # once for all that is measured on it
    return Row(
        id=f"{job.source}/{tile.name}",
        source=job.source,
        place=place,
        file=file,
        label=tile.label,
        labels=tile.labels,
        width=width,
        height=height,
        gsd_m=None if tile.gsd_m is None else round(tile.gsd_m * image.shape[1] / width, 4),
        crs=tile.crs,
        date=tile.date,
        **measure(levels, nodata)._asdict(),
        nodata_share=0.0 if nodata is None else _share(nodata),
        cloud_share=None if tile.cloud is None else _share(tile.cloud),
        pixel_hash=pixel_hash(image),
        dhash=dhash(levels),
        bounds=tile.bounds,
        own_size=len(own[0]) if own else None,
        own_hash=_hash(own),
        transform=tile.transform and coarser(tile.transform, image.shape[1] / width, image.shape[0] / height),
    )


def _encode_file(params: Params, images: Sequence[Kept]) -> list[Encoded]:
    geopile = params.geopile
    source = geopile.sources[images[0].row.source]
    wanted = {tile_name_of(image.row): image.row for image in images}
    found: dict[str, Encoded] = {}
    try:
        if all(image.row.own_hash is not None for image in images):
            return [_own_bytes(params, image) for image in images]
        for tile in _tiles_again(params, images, frozenset(wanted)):
            row = wanted[tile.name]
            image = to_uint8(tile.pixels, source.imagery, source.stored_bands(geopile.bands))
            own = _original(tile, image, geopile.store_px)
            if (pixel_hash(image), _hash(own)) != (row.pixel_hash, row.own_hash):
                raise ImageError(params.paths.raw.path / row.file, "changed while the collection was being built")
            stored = fitted(image, geopile.store_px)
            data, suffix = own or encode(stored, geopile.jpeg_quality)
            found[tile.name] = Encoded(row.id, data, suffix)
        if gone := wanted.keys() - found.keys():
            raise ImageError(params.paths.raw.path / images[0].row.file, f"has no {min(gone)} any more")
    except ImageError as error:
        raise ChangedError(
            f"{error.path}: {error.reason}, after it had been read once; run `gfm assemble` again", images[0].row.id
        ) from None
    return [found[name] for name in wanted]


def _own_bytes(params: Params, image: Kept) -> Encoded:
    """The image as its file holds it; ImageError where that has changed. Equal bytes need no decoding to know them."""
    row = image.row
    if image.member is not None:
        data = image.member.data or b""
    else:
        source = params.geopile.sources[row.source]
        folder = folder_of(source, _root(params.paths.raw, source.root))
        data = folder.image(file_of(source, row)).encoded()
    if xxhash.xxh3_128_hexdigest(data) != row.own_hash:
        raise ImageError(params.paths.raw.path / row.file, "changed while the collection was being built")
    return Encoded(row.id, data, ".jpg" if is_jpeg(data) else ".png")


def _tiles_again(params: Params, images: Sequence[Kept], names: frozenset[str]) -> Iterator[Tile]:
    row = images[0].row
    source = params.geopile.sources[row.source]
    root, file = _root(params.paths.raw, source.root), file_of(source, row)
    if not is_archive(source):  # one reading gives all
        yield from read_pixels(source, root, file, params.geopile.tile_px, names)
        return
    for image in images:
        assert image.member is not None
        yield member_tile(source, root, file, image.member)


def _original(tile: Tile, image: Array, store_px: int | None) -> tuple[bytes, str] | None:
    """The file's own bytes and suffix, where it is a PNG or JPEG of pixels that are already those to be stored."""
    if fitted_size(image.shape[0], image.shape[1], store_px) != image.shape[:2]:
        return None
    if tile.whole is None or tile.pixels.shape != image.shape:
        return None
    if not (np.may_share_memory(tile.pixels, image) or np.array_equal(tile.pixels, image)):
        return None
    data = tile.whole.encoded()
    if is_jpeg(data):
        return data, ".jpg"
    return (data, ".png") if is_png(data) else None


def _share(mask: Mask) -> float:
    return round(np.count_nonzero(mask) / mask.size, 4)


def _hash(own: tuple[bytes, str] | None) -> str | None:
    return str(xxhash.xxh3_128_hexdigest(own[0])) if own else None
