"""What land the found images show, by the rasters that `geopile.land_cover` declares; no image is read for it.

Remembered by the parts of the first pass: under a digest of the rasters, of their declaration and of where the part's
images lie, so that another quota reads no raster again and a raster that changed is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from gfm.errors import DataError
from gfm.geopile.cache import Cache
from gfm.geopile.findings import Part, read_part, read_parts
from gfm.geopile.parallel import OrderedMap
from gfm.geopile.sources.folder import DiskFolder
from gfm.geopile.sources.listing import glob_regex
from gfm.geopile.units import Unit
from gfm.imagery.footprint import Bounds
from gfm.imagery.land_cover import UNKNOWN, Footprint, Legend, Map, main_classes, read_map
from gfm.params import LandCover, Params
from gfm.progress import track

FORMAT = 1  # raise it when the same rasters give other classes: all are then looked up again

KEY = "geopile.land_cover"
_GROUND = [*Bounds._fields, "crs", "transform", "width", "height"]
_EVERY_TIFF = ["**/*.[tT][iI][fF]", "**/*.[tT][iI][fF][fF]"]

Numbers = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Maps:
    """The rasters, in the order of their names, and a digest of all that their answers depend on."""

    maps: list[Map]
    legend: Legend
    digest: str

    def of(self, cache: Cache, part: Part) -> Numbers | None:
        """The class of each image of a part, a number in `LandCover.names` or UNKNOWN; None where not remembered."""
        if not _placed(part.table).any():
            return np.full(part.table.num_rows, UNKNOWN, np.int16)
        content = cache.read(self.name(part))
        return None if content is None else np.frombuffer(content, "<i2")

    def name(self, part: Part) -> str:
        """What a part's classes are remembered under."""
        sink = pa.BufferOutputStream()
        table = part.table.select(_GROUND).replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        digest = xxhash.xxh3_128(self.digest.encode())
        digest.update(sink.getvalue())
        return f"land-cover/{digest.hexdigest()}"


def list_maps(params: Params, cache: Cache) -> Maps | None:
    """The declared rasters; None where none are. They are opened only where one has changed since.

    DataError for a folder that is missing or holds none, ImageError for a raster that is no map of classes.
    """
    declared = params.geopile.land_cover
    if declared is None:
        return None
    root = params.paths.raw.path / declared.root
    files = _files(declared, root)
    stamps = [(file, *DiskFolder(root).stamp(file)) for file in files]
    settings = declared.model_dump(include={"classes", "nodata"})
    digest = xxhash.xxh3_128_hexdigest(json.dumps([FORMAT, settings, stamps]).encode())
    content = cache.read(f"land-cover/maps-{digest}")
    if content is None:
        content = json.dumps([read_map(root / file).bounds for file in files]).encode()
        cache.write(f"land-cover/maps-{digest}", content)
    maps = [Map(root / file, Bounds(*sides)) for file, sides in zip(files, json.loads(content), strict=True)]
    numbers = {value: declared.names.index(name) for value, name in declared.classes.items()}
    return Maps(maps, Legend(numbers, declared.nodata, KEY), digest)


def unknown_parts(maps: Maps, units: Sequence[Unit], cache: Cache) -> dict[str, int]:
    """The parts of the first pass whose images' classes are not remembered, and how many images each has."""
    parts = (part for unit in units for part in read_parts(cache, unit))
    return {part.name: part.table.num_rows for part in parts if maps.of(cache, part) is None}


def look_up(maps: Maps, parts: Sequence[str], cache: Cache, map_in_order: OrderedMap) -> None:
    """Find and remember the classes of the images of some parts."""
    answers = map_in_order(partial(_classes, maps), _tables(parts, cache))
    for name, classes in zip(parts, track(answers, "land cover", total=len(parts), unit="parts"), strict=True):
        if (part := read_part(cache, name)) is not None:
            cache.write(maps.name(part), classes.astype("<i2").tobytes())


def _tables(parts: Sequence[str], cache: Cache) -> Iterator[pa.Table]:
    for name in parts:
        part = read_part(cache, name)
        assert part is not None  # it was read a moment ago
        yield part.table.select(_GROUND)


def _classes(maps: Maps, table: pa.Table) -> Numbers:
    placed = _placed(table)
    rows = table.filter(pa.array(placed)).to_pylist()
    images = [
        Footprint(
            Bounds(*(row[side] for side in Bounds._fields)),
            row["crs"],
            tuple(row["transform"]),
            row["width"],
            row["height"],
        )
        for row in rows
    ]
    classes = np.full(table.num_rows, UNKNOWN, np.int16)
    classes[placed] = main_classes(images, maps.maps, maps.legend)
    return classes


def _placed(table: pa.Table) -> npt.NDArray[np.bool_]:
    placed: npt.NDArray[np.bool_] = table["west"].is_valid().to_numpy() & table["transform"].is_valid().to_numpy()
    return placed


def _files(declared: LandCover, root: Path) -> list[str]:
    if not root.is_dir():
        fix = f"put the rasters there, or correct {KEY}.root or paths.raw"
        raise DataError(f"{KEY}.root: folder {root} does not exist; {fix}")
    try:
        patterns = [glob_regex(pattern) for pattern in declared.include or _EVERY_TIFF]
    except DataError as error:
        raise DataError(f"{KEY}.include: {error}") from None
    found = (file for file in DiskFolder(root).files(KEY) if any(pattern.fullmatch(file) for pattern in patterns))
    hidden = () if declared.include else (".",)
    files = sorted(file for file in found if not file.rsplit("/", 1)[-1].startswith(hidden))
    if not files:
        wanted = ", ".join(declared.include) or "*.tif or *.tiff"
        fix = f"correct {KEY}.root or {KEY}.include"
        raise DataError(f"{KEY}: folder {root} holds no file that matches {wanted}; {fix}")
    return files
