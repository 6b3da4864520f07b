"""Images in one folder per class: the label is the folder's name; a GeoTIFF lies where it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gfm.geopile.sources.listing import PICTURES, matching
from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import georeference
from gfm.imagery.raster import read_image
from gfm.params import ClassFoldersSource


def list_files(name: str, source: ClassFoldersSource, root: Path) -> list[str]:
    """`CLASS/FILE` of every image, relative to the source's root."""
    return matching(root, name, source.include, "*/*", PICTURES)


def read_tiles(source: ClassFoldersSource, root: Path, file: str) -> Iterator[Tile]:
    """The whole image, labelled with the name of the folder that holds it."""
    label = Path(file).parent.name or None
    pixels = read_image(root / file, source.imagery)
    nodata, gsd_m = source.imagery.nodata, declared_gsd(source.gsd_m)
    own = georeference(root / file) if source.georeference == "file" else None
    if own is None:
        yield Tile(file, pixels, nodata=nodata, label=label, gsd_m=gsd_m)
    else:
        gsd_m = gsd_m or own.gsd_m
        yield Tile(file, pixels, nodata=nodata, label=label, gsd_m=gsd_m, crs=own.crs, bounds=own.bounds)
