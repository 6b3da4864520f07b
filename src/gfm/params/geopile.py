"""The pretraining collection: sources, quality, duplicates, splits, and when validation stops the chain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gfm.params.imagery import Imagery
from gfm.params.section import (
    Ascending,
    Below,
    ClassName,
    Different,
    Licence,
    Listed,
    Name,
    OpenShare,
    SchedulerAddress,
    Section,
    Share,
    StoreAddress,
)


class SourceBase(Section):
    """One place that pretraining images come from (a declaration, not code)."""

    root: Below  # below paths.raw, or below `store`
    store: StoreAddress | None = None  # s3://bucket/prefix, gs://…, https://…: takes the place of paths.raw
    imagery: Imagery = Imagery()
    # metres a pixel, or a range; None: from the file
    gsd_m: PositiveFloat | Annotated[tuple[PositiveFloat, PositiveFloat], Listed, Ascending] | None = None
    licence: Licence
    citation: str = ""
    composite: dict[str, str] = {}  # which stored band stands for each of geopile.bands, where the names differ
    include: list[str] = []  # glob patterns under root; empty: the format's own
    limit: PositiveInt | None = None  # keep at most so many tiles, chosen by hash
    weight: PositiveFloat = 1.0  # pretraining draws an image of weight 2 twice as often as one of weight 1

    def stored_bands(self, bands: list[str]) -> list[str]:
        """The stored bands that fill the collection's `bands`, in that order."""
        return [self.composite.get(band, band) for band in bands]

    @property
    def labelled(self) -> bool:
        """Whether its images carry the name of a class, so that a teacher can learn from them."""
        return False


class CloudMask(Section):
    """What says where a scene is cloudy: a raster beside it, or one of its own bands; nothing is guessed from colours.

    A pixel is cloud by its value, or where one of `bits` is set. Sentinel-2's scene classification is
    `cloud: [3, 8, 9, 10], clear: [0, 1, 2, 4, 5, 6, 7, 11]`, with shadows; its QA60 is `bits: [10, 11]`.
    """

    # its name in the scene's folder, with {stem} for the scene's name without suffix, and * and ? for what varies
    file: str | None = None
    band: str | None = None  # or one of imagery.bands
    cloud: Annotated[list[int], Different] = []  # stored values that mean cloud
    bits: list[Annotated[int, Field(ge=0, le=31)]] = []  # or bits, 0 the lowest
    clear: list[int] | None = None  # all other values; with it, any further one quarantines the scene

    @model_validator(mode="after")
    def _one_of_each(self) -> CloudMask:
        if (self.file is None) == (self.band is None):
            raise ValueError("give file, or band, of the cloud mask")
        if bool(self.cloud) == bool(self.bits):
            raise ValueError("give cloud, the values, or bits, that mean cloud")
        if self.file is not None and ("/" in self.file or self.file in ("", "{stem}")):
            raise ValueError(
                f"file = {self.file} must name a file in the scene's folder, for example {{stem}}_cloud.tif"
            )
        both = sorted(set(self.cloud) & set(self.clear or ()))
        if both:
            raise ValueError(f"{both[0]} is among cloud and clear")
        return self


class ScenesSource(SourceBase):
    """Georeferenced GeoTIFF scenes (NAIP), cut into tiles by windowed reading."""

    format: Literal["scenes"]
    cloud: CloudMask | None = None
    resample_m: PositiveFloat | None = None  # reproject to square pixels of so many metres; None: pixels as they are
    crs: Annotated[str, Field(pattern=r"^[A-Za-z]+:\d+$")] | None = None  # with resample_m: EPSG:3035; None: UTM

    @model_validator(mode="after")
    def _crs_needs_a_size(self) -> ScenesSource:
        if self.crs is not None and self.resample_m is None:
            raise ValueError(f"crs = {self.crs} is for scenes that are reprojected: give resample_m too")
        if self.resample_m is not None and self.gsd_m is not None:
            raise ValueError("gsd_m and resample_m both say how large a pixel is; leave gsd_m out")
        if self.cloud is not None and self.resample_m is not None:
            raise ValueError("cloud and resample_m: a cloud mask is read on its scene's own grid; leave one out")
        return self

    @model_validator(mode="after")
    def _mask_is_at_hand(self) -> ScenesSource:
        if self.cloud is not None and self.cloud.band is not None and self.cloud.band not in self.imagery.bands:
            raise ValueError(f"cloud.band = {self.cloud.band} is not one of imagery.bands")
        if self.cloud is not None and self.cloud.file is not None and self.store is not None:
            raise ValueError("cloud.file is read from disk only; stack the mask as a band and give cloud.band")
        return self


class ClassFoldersSource(SourceBase):
    """Images in one folder per class (RSD46-WHU, MLRSNet, RESISC45, PatternNet)."""

    format: Literal["class-folders"]
    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known
    # glob under root: CSV tables of further labels, an image a row, a label a column of 0 and 1 (MLRSNet)
    label_tables: str | None = None

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
    cloud: CloudMask | None = None

    @model_validator(mode="after")
    def _mask_is_a_file(self) -> BandFilesSource:
        if self.cloud is not None and self.cloud.band is not None:
            raise ValueError("cloud.band would be resampled as a band; name its file: cloud.file = *_SCL.tif")
        return self

    @model_validator(mode="after")
    def _on_disk(self) -> BandFilesSource:
        if self.store is not None:
            raise ValueError("store: band-files are read from disk only; copy them there, or stack the bands as scenes")
        return self


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
    max_nodata_share: Share = 0.1  # share of pixels equal to nodata in every band; Prithvi: 0.01
    max_cloud_share: Share | None = None  # share of cloudy pixels, where the source declares a mask; Prithvi: 0.2
    min_px: PositiveInt = 32  # shorter side of a usable image


class LandCover(Section):
    """Classified rasters (ESA WorldCover, CORINE, NLCD) that say what an image shows: column `land_cover`."""

    root: Below  # below paths.raw: GeoTIFFs of one band of whole numbers, in any coordinate systems
    include: list[str] = []  # glob patterns under root; empty: every .tif and .tiff
    # what each stored value means; values of the same name are one class
    classes: dict[int, ClassName] = Field(min_length=1)
    nodata: int = (
        0  # the stored value that means nothing; what a file itself calls so does too, unless it is a class here
    )

    @property
    def names(self) -> list[str]:
        """The classes, each once, in the order in which they are declared."""
        return list(dict.fromkeys(self.classes.values()))

    @model_validator(mode="after")
    def _nothing_is_no_class(self) -> LandCover:
        if self.nodata in self.classes:
            raise ValueError(f"nodata = {self.nodata} is among classes; leave it out, or give another nodata")
        return self


class Quota(Section):
    """At most so many images of each class, chosen by the hash of their ids, after duplicates are dropped."""

    # label: a class counts within its source; land_cover: over all sources; images without one are not limited
    by: Literal["label", "source", "land_cover"]
    most: PositiveInt | Literal["smallest"]  # smallest: as many of each class as the smallest one has


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
    # for each of these sources also a manifest of the collection without it, which pretrain.NAME.without trains on
    leave_out: Annotated[list[Name], Different] = []
    workers: NonNegativeInt = 0  # processes; 0: as many as cores
    # tcp://HOST:PORT of a Dask scheduler, whose workers then do the work instead; they read paths.raw by the same path
    scheduler: SchedulerAddress | None = None
    quality: Quality = Quality()
    land_cover: LandCover | None = None  # None: not asked, and the manifest has no column of it
    quota: Quota | None = None  # None: all that is left is kept
    sources: dict[Name, Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _stored_images_are_large_enough(self) -> Geopile:
        if self.store_px is not None and self.store_px < self.quality.min_px:
            raise ValueError(
                f"store_px = {self.store_px} is below quality.min_px = {self.quality.min_px}: every image would be "
                "dropped as too small; raise one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def _land_cover_is_known(self) -> Geopile:
        if self.quota is not None and self.quota.by == "land_cover" and self.land_cover is None:
            raise ValueError("quota.by = land_cover needs land_cover: declare the rasters that say it")
        return self


class Splits(Section):
    """How the collection and the tasks are divided: by hash of the place, so that an image never changes split."""

    val_share: OpenShare = 0.05  # of the collection's places, held out for the pretraining loss
    block_km: PositiveFloat = 2.0  # georeferenced images within one such block of ground are one place
    leak_bits: Annotated[int, Field(ge=0, le=16)] = (
        3  # dHash distance (any flip or turn) at which a task image has leaked
    )
    # places of the collection (column `place` of its manifest) that are held out, or train, whatever their hash says
    val_places: Annotated[list[str], Different] = []
    train_places: Annotated[list[str], Different] = []
    # also look for shifted crops and other zooms of task images, by corners
    find_shifted: bool = False

    @model_validator(mode="after")
    def _a_place_is_named_once(self) -> Splits:
        both = sorted(set(self.val_places) & set(self.train_places))
        if both:
            raise ValueError(f"val_places and train_places both name {both[0]}; take it out of one")
        return self


class Validation(Section):
    """When `gfm validate` stops the chain."""

    # Of all files met; above it the source folder itself is suspect. Of one source or one task it is a warning.
    max_quarantined_share: Share = 0.05
    min_images: PositiveInt = 1  # fewer usable images than this is critical
    min_images_per_source: PositiveInt = 1
    # against the version validated before; findings are warnings unless expectations/drift.json says otherwise
    max_lost_share: Share = 0.1  # of a source's images that may be gone
    max_drift: NonNegativeFloat = 0.5  # by which a source's median measures may move, in their quartile distances
    max_class_drift: Share = 0.1  # share of a source's images that would have to change class
