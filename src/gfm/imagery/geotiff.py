"""Results as GeoTIFFs that QGIS and rasterio read: tiled, compressed, with the place of what they were made from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from gfm.errors import GfmError
from gfm.imagery.raster import Array

TILE = 512  # side of a tile, px; a multiple of 16


@dataclass(frozen=True, slots=True)
class Place:
    """The grid of a raster; `crs` and `transform` are rasterio's, None where a picture has no place.

    `gcps` are rasterio's ground control points, of a raster that has no transform.
    """

    width: int
    height: int
    crs: Any = None
    transform: Any = None
    gcps: Sequence[Any] = ()

    @classmethod
    def of(cls, dataset: Any) -> Place:
        """The grid of an open rasterio dataset."""
        if not dataset.transform.is_identity:
            return cls(dataset.width, dataset.height, dataset.crs, dataset.transform)
        gcps, crs = dataset.gcps
        return cls(dataset.width, dataset.height, crs if gcps else dataset.crs, gcps=tuple(gcps))

    def finer(self, width: int, height: int, factor: Fraction) -> Place:
        """From the same corner `width` x `height` pixels, `factor` times as many to a length of ground."""
        if factor == 1:
            return replace(self, width=width, height=height)
        transform = None if self.transform is None else self.transform @ self.transform.scale(float(1 / factor))
        gcps = [
            type(point)(float(point.row * factor), float(point.col * factor), point.x, point.y, point.z)
            for point in self.gcps
        ]
        return Place(width, height, self.crs, transform, tuple(gcps))


@dataclass(frozen=True, slots=True)
class Layers:
    """What the bands of a raster hold."""

    dtype: str
    names: Sequence[str]  # of the bands
    nodata: float | None
    unit: str = ""
    values: Sequence[str] = ()  # of a single band of class ids: their names, from 0
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)  # of these values


# Writes a block (bands, height, width) whose upper left pixel is (x, y).
Write = Callable[[int, int, Array], None]


@contextmanager
def new_geotiff(path: Path, place: Place, layers: Layers, tags: Mapping[str, str]) -> Iterator[Write]:
    """A file that stands under its name when the block ends without an error; GfmError where it cannot be written.

    Blocks that begin and end at whole tiles are stored once; others are right too, but take more room. Names of values
    are written to `path.aux.xml`, where GDAL keeps them.
    """
    import rasterio
    from rasterio.windows import Window

    unfinished = path.with_name(f".{path.name}.part")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": place.width,
        "height": place.height,
        "count": len(layers.names),
        "dtype": layers.dtype,
        "nodata": layers.nodata,
        "crs": place.crs,
        "transform": place.transform,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "interleave": "band",
    }
    if place.gcps:
        profile["gcps"] = place.gcps
    if not layers.colours:
        profile["predictor"] = 3 if layers.dtype == "float32" else 2
    try:
        with _writing(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(unfinished, "w", **profile)
        try:
            with _writing(path):
                _describe(dataset, layers, tags)

            def write(x: int, y: int, block: Array) -> None:
                with _writing(path):
                    dataset.write(block, window=Window(x, y, block.shape[2], block.shape[1]))

            yield write
        finally:
            with _writing(path):
                dataset.close()
        with _writing(path):
            _add_overviews(unfinished, place, layers)
            for beside in files_of(path, layers)[1:]:
                beside.write_text(_categories(layers.values), encoding="utf-8")
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def files_of(path: Path, layers: Layers) -> list[Path]:
    """What `new_geotiff` writes: the raster first, and where its values have names, the file of these."""
    return [path, path.with_name(f"{path.name}.aux.xml")] if layers.values else [path]


def _describe(dataset: Any, layers: Layers, tags: Mapping[str, str]) -> None:
    dataset.update_tags(**tags)
    for band, name in enumerate(layers.names, start=1):
        dataset.set_band_description(band, name)
    if layers.unit:
        dataset.units = [layers.unit] * len(layers.names)
    if layers.values:
        dataset.update_tags(1, **{f"CLASS_{value}": name for value, name in enumerate(layers.values)})
    if layers.colours:
        opaque = {value: (*colour, 255) for value, colour in layers.colours.items()}
        hidden = {} if layers.nodata is None else {int(layers.nodata): (0, 0, 0, 0)}
        dataset.write_colormap(1, opaque | hidden)


def _add_overviews(path: Path, place: Place, layers: Layers) -> None:
    """Reduced copies inside the file, without which large rasters open slowly."""
    import rasterio
    from rasterio.enums import Resampling

    factors = [2**power for power in range(1, 16) if max(place.width, place.height) > TILE * 2**power]
    if factors:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews(factors, Resampling.nearest if layers.values else Resampling.average)


def _categories(names: Sequence[str]) -> str:
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = " ".join(str(cause).split())
        # Of a full disk GDAL says no more than "write error".
        raise GfmError(f"{path}: cannot be written ({text}); make room, or give another place") from None
