"""A whole image as one tile, placed on Earth by its own coordinates or by slippy-map tile numbers in its name."""

from __future__ import annotations

from pathlib import Path

from gfm.geopile.sources.tile import Tile, declared_gsd
from gfm.imagery.footprint import Bounds, Transform, slippy_bounds, slippy_gsd_m, slippy_numbers, slippy_transform
from gfm.imagery.image_file import ImageFile
from gfm.imagery.raster import ImageError
from gfm.params import ArchiveSource, ClassFoldersSource, ImagesSource, WebdatasetSource

ImageSource = ArchiveSource | ClassFoldersSource | ImagesSource | WebdatasetSource


def image_tile(
    source: ImageSource,
    name: str,
    file: ImageFile,
    *,
    label: str | None = None,
    labels: tuple[str, ...] | None = None,
    date: str | None = None,
) -> Tile:
    """The image with its ground, as the file says, or its name with `georeference: slippy`.

    Raises ImageError when the image cannot be used, or its name carries none of the declared slippy-map numbers.
    """
    gsd_m = declared_gsd(source.gsd_m)
    crs: str | None = None
    bounds: Bounds | None = None
    transform: Transform | None = None
    numbers = _slippy_numbers(file.path, name) if source.georeference == "slippy" else None
    pixels = file.pixels(source.imagery)
    own = file.georeference() if source.georeference == "file" else None
    if own is not None:
        gsd_m, crs, bounds, transform = gsd_m or own.gsd_m, own.crs, own.bounds, own.transform
    elif numbers is not None:
        x, y, zoom = numbers
        gsd_m, crs, bounds = gsd_m or slippy_gsd_m(y, zoom, pixels.shape[1]), "EPSG:3857", slippy_bounds(x, y, zoom)
        transform = slippy_transform(x, y, zoom, pixels.shape[1], pixels.shape[0])
    return Tile(
        name,
        pixels,
        nodata=source.imagery.nodata,
        label=label,
        labels=labels,
        gsd_m=gsd_m,
        crs=crs,
        date=date,
        bounds=bounds,
        transform=transform,
        whole=file,
    )


def _slippy_numbers(path: Path, name: str) -> tuple[int, int, int]:
    numbers = slippy_numbers(Path(name).stem)
    if numbers is None:
        fix = "rename it to NAME-X-Y-ZOOM, or set georeference: file"
        raise ImageError(path, "its name carries no slippy-map tile numbers", fix)
    return numbers
