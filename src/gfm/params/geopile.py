"""The pretraining collection: sources, quality, duplicates, splits, and when validation stops the chain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gfm.params.imagery import Imagery
from gfm.params.section import (
    Ascending,
    Below,
    Different,
    Licence,
    Listed,
    Name,
    OpenShare,
    SchedulerAddress,
    Section,
    Share,
)


class SourceBase(Section):
    """One place that pretraining images come from (a declaration, not code)."""

    root: Below
    imagery: Imagery = Imagery()
    # metres a pixel, or a range; None: from the file
    gsd_m: PositiveFloat | Annotated[tuple[PositiveFloat, PositiveFloat], Listed, Ascending] | None = None
    licence: Licence
    citation: str = ""
    composite: dict[str, str] = {}  # which stored band stands for each of geopile.bands, where the names differ
    include: list[str] = []  # glob patterns under root; empty: the format's own
    limit: PositiveInt | None = None  # keep at most so many tiles, chosen by hash

    def stored_bands(self, bands: list[str]) -> list[str]:
        """The stored bands that fill the collection's `bands`, in that order."""
        return [self.composite.get(band, band) for band in bands]

    @property
    def labelled(self) -> bool:
        """Whether its images carry the name of a class, so that a teacher can learn from them."""
        return False


class ScenesSource(SourceBase):
    """Georeferenced GeoTIFF scenes, cut into tiles by windowed reading."""

    format: Literal["scenes"]


class ClassFoldersSource(SourceBase):
    """Images in one folder per class (RSD46-WHU, MLRSNet, RESISC45, PatternNet)."""

    format: Literal["class-folders"]
    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known

    @property
    def labelled(self) -> bool:
        return True


class ImagesSource(SourceBase):
    """A flat folder of images, optionally named by slippy-map tile numbers (`NAME-X-Y-ZOOM.png`)."""

    format: Literal["images"]
    # file: a GeoTIFF lies where it says; slippy: by the tile numbers in the name; none: places are not known
    georeference: Literal["file", "none", "slippy"] = "file"


class BandFilesSource(SourceBase):
    """Scenes stored as one GeoTIFF a band (`…_B04.tif`), resampled to the first declared band's grid."""

    format: Literal["band-files"]


class ArchiveSource(SourceBase):
    """Images inside .tar, .tar.gz, .tgz, .tar.zst and .zip files, read where they lie; nothing is extracted."""

    format: Literal["archive"]
    labels: Literal["none", "folders"] = "none"  # folders: the folder that holds an image inside is its class
    # file: a GeoTIFF lies where it says; slippy: by the tile numbers in the name; none: places are not known
    georeference: Literal["file", "none", "slippy"] = "file"

    @property
    def labelled(self) -> bool:
        return self.labels == "folders"


class WebdatasetSource(SourceBase):
    """Tar shards in the layout of webdataset: `KEY.jpg` (png, tif), its class in `KEY.cls`, `.txt` or `.json`."""

    format: Literal["webdataset"]
    label_key: str | None = None  # the field of KEY.json that names the class; None: KEY.cls, else KEY.txt
    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known

    @property
    def labelled(self) -> bool:
        return True


Source = Annotated[
    ScenesSource | ClassFoldersSource | ImagesSource | BandFilesSource | ArchiveSource | WebdatasetSource,
    Field(discriminator="format"),
]


class Quality(Section):
    """Images below these limits are dropped and counted with the reason."""

    min_entropy_bits: NonNegativeFloat = 1.0  # Shannon entropy of the grey histogram, 0-8 bits
    min_contrast: Annotated[float, Field(ge=0, le=127.5)] = 0.0  # standard deviation of the grey levels; 0: any
    min_sharpness: NonNegativeFloat = 0.0  # variance of grey's Laplacian; 0: any; it differs by sensor
    max_nodata_share: Share = 0.1  # share of pixels equal to nodata in every band
    min_px: PositiveInt = 32  # shorter side of a usable image


class Geopile(Section):
    """The pretraining collection: sources -> tiles -> quality -> duplicates -> shards + manifest."""

    bands: Annotated[list[str], Different] = Field(
        default=["R", "G", "B"], min_length=1
    )  # of each stored image, in this order
    tile_px: PositiveInt = 256  # side of tiles cut from scenes
    shard_mb: PositiveFloat = 64.0  # a shard is closed when it passes this size
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = (
        95  # of tiles cut from scenes; image files are kept as they are
    )
    # images larger than this on their shorter side are stored resized to it, once; null: as they are
    store_px: PositiveInt | None = None
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = (
        3  # dHash Hamming distance that counts as the same picture
    )
    workers: NonNegativeInt = 0  # processes; 0: as many as cores
    # tcp://HOST:PORT of a Dask scheduler, whose workers then do the work instead; they read paths.raw by the same path
    scheduler: SchedulerAddress | None = None
    quality: Quality = Quality()
    sources: dict[Name, Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _stored_images_are_large_enough(self) -> Geopile:
        if self.store_px is not None and self.store_px < self.quality.min_px:
            raise ValueError(
                f"store_px = {self.store_px} is below quality.min_px = {self.quality.min_px}: every image would be "
                "dropped as too small; raise one or lower the other"
            )
        return self


class Splits(Section):
    """How the collection and the tasks are divided: by hash of the place, so that an image never changes split."""

    val_share: OpenShare = 0.05  # of the collection's places, held out for the pretraining loss
    block_km: PositiveFloat = 2.0  # georeferenced images within one such block of ground are one place
    leak_bits: Annotated[int, Field(ge=0, le=16)] = (
        3  # dHash distance (any flip or turn) at which a task image has leaked
    )


class Validation(Section):
    """When `gfm validate` stops the chain."""

    max_quarantined_share: Share = 0.05  # of all files met; above it the source folder itself is suspect
    min_images: PositiveInt = 1  # fewer usable images than this is critical
    min_images_per_source: PositiveInt = 1
