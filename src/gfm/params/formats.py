"""How labelled data lies on disk: one section a format, with bands, scale, nodata and split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_serializer, model_validator

from gfm.params.imagery import Imagery, storable
from gfm.params.section import Below, FileBelow, Section, Share, StoredValue

MOST_CLASSES = 255  # a pixel's class id is 8 bits, of which one value says that it is not scored


class PlaceSplit(Section):
    """Which places train, validate and test. A place is what the format says: an area, a city, a block of tiles.

    Published split files, where a format knows them and they lie beside the data, go before these rules.
    """

    column: str | None = None  # of a labels table: says train, val or test of each row, instead of the four rules below
    test: list[str] = []  # whole places (or name prefixes up to a `/`) held out for the one final test
    val: list[str] = []
    val_share: Share = 0.0  # of the other places, by hash, when `val` is empty
    test_share: Share = 0.0  # likewise, when `test` is empty
    # Samples on ground of a part that counts more (test, then val): report, at which `gfm validate` stops, or drop.
    overlap: Literal["report", "drop"] = "report"
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = (
        3  # dHash distance (any flip or turn) at which samples of two parts are reported as alike
    )

    @model_validator(mode="after")
    def _one_rule_each(self) -> PlaceSplit:
        if self.column is not None:
            if self.test or self.val or self.test_share or self.val_share:
                raise ValueError("column says the part of every row; leave test, val and their shares out")
            return self
        for part in ("test", "val"):
            if bool(getattr(self, part)) == bool(getattr(self, f"{part}_share")):
                raise ValueError(f"give either {part} (names of places) or {part}_share (above 0), not both or neither")
        both = sorted(set(self.test) & set(self.val))
        if both:
            raise ValueError(f"{both[0]} is named in test and in val; a place is in one part only")
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share + test_share = {self.val_share + self.test_share:g} leaves nothing to train on"
            )
        return self


class FormatBase(Section):
    root: Below
    imagery: Imagery = Imagery()
    split: PlaceSplit


class ClassFolders(FormatBase):
    """One folder of images per class (UC Merced). The place is the image.

    Where uc_merced-train.txt, -val.txt and -test.txt (names of images) lie in root or above it, they say the parts.
    """

    format: Literal["class-folders"]
    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known


def _stored_values(classes: Any) -> Any:
    """A list of names means the values 0, 1 and so on; a name's single value means that one; {value: name} too."""
    if isinstance(classes, list):
        if any(isinstance(name, dict) for name in classes):
            raise ValueError("lists names alone; with their values it is a mapping: {background: 0, roof: [1, 2]}")
        unquoted = [name for name in classes if not isinstance(name, str)]
        if unquoted:
            raise ValueError(f"names {unquoted[0]!r}, which YAML does not take for text: write it in quotes")
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice[0]} twice")
        return {name: [value] for value, name in enumerate(classes)}
    if not isinstance(classes, dict):
        return classes
    if classes and all(type(value) is int and isinstance(name, str) for value, name in classes.items()):
        return {name: [value for value in classes if classes[value] == name] for name in classes.values()}
    return {name: [value] if type(value) is int else value for name, value in classes.items()}


# Names -> the values that stand for them in the data; a plain list of names means 0, 1, 2 and so on.
ClassValues = Annotated[dict[str, Annotated[list[int], Field(min_length=1)]], BeforeValidator(_stored_values)]


class ClassMap(FormatBase):
    """What the stored values of a map of classes mean; any value that is neither named nor ignored is an error."""

    classes: ClassValues = {}  # each name with its value or values in the data; a list: 0, 1, 2 and so on
    ignore: list[int] = []  # values that are no class: neither learned nor scored

    @model_validator(mode="after")
    def _values_differ(self) -> ClassMap:
        if len(self.classes) > MOST_CLASSES:
            raise ValueError(f"classes names {len(self.classes)}, more than {MOST_CLASSES}")
        owners: dict[int, str] = dict.fromkeys(self.ignore, "ignore")
        for name, values in self.classes.items():
            for value in values:
                if value in owners:
                    raise ValueError(f"classes: the value {value} is of {name} and of {owners[value]}")
                owners[value] = name
        return self


class Masks(ClassMap):
    """Pictures of two classes or more, stored by value or as anything above zero."""

    classes: ClassValues = Field(default={"background": [0], "foreground": [1]}, min_length=2)
    # exact: values are those of classes; above-zero: any value > 0 that is not ignored is the second of two classes
    foreground: Literal["exact", "above-zero"] = "exact"

    @field_serializer("classes")
    def _as_a_list(self, classes: dict[str, list[int]]) -> dict[str, list[int]] | list[str]:
        """Plain class ids as most people declare them: what was recorded of a task stays the same."""
        return list(classes) if [*classes.values()] == [[value] for value in range(len(classes))] else classes

    @model_validator(mode="after")
    def _zero_parts_two_classes(self) -> Masks:
        if self.foreground == "above-zero" and [*self.classes.values()] != [[0], [1]]:
            raise ValueError(
                "foreground = above-zero tells two classes apart, whatever their values: give classes as a list of "
                "two names, or set foreground = exact"
            )
        return self


class SiblingFolders(FormatBase):
    """Images, and what is predicted from each of them, in two folders side by side."""

    images: str = "images"
    # file: a GeoTIFF lies where it says; slippy: by the tile numbers in the name; none: places are not known
    georeference: Literal["file", "none", "slippy"] = "file"
    # folder: the one above `images`; block: of ground within that folder, or the image itself where its ground is not
    # known, as always where there is no such folder
    place: Literal["folder", "block"] = "folder"
    block_km: PositiveFloat = 1.0  # side of a block of ground; neighbouring images touch


class ImageMasks(SiblingFolders, Masks):
    """Images and masks of the same name in sibling folders (WHU Aerial, hot-buildings).

    The place is the folder above `images`, else the block of ground that the image lies in, else the image. Where
    names carry slippy-map numbers it is the folder, then the block of tiles.
    """

    format: Literal["image-masks"]
    masks: str = "masks"
    block_tiles: PositiveInt = 4  # side of a block of slippy-map tiles that is one place
    chip_px: PositiveInt | None = None  # images are cut into chips of this side; None: images are chips, of one size
    # classification of presence: the smallest share, of pixels not ignored, of other classes than the first
    presence_share: Share = 0.0


class Oscd(FormatBase):
    """Onera Satellite Change Detection's own layout: a GeoTIFF a band and date, change masks. The place is the city."""

    format: Literal["oscd"]
    imagery: Imagery = Imagery(dtype="uint16", bands={"B04": 0.665, "B03": 0.560, "B02": 0.490}, scale=1 / 3500)
    chip_px: PositiveInt = 96  # cities are cut into chips of this side; edges are padded and not scored
    align: Literal["error", "resample"] = "error"  # what to do where the second date's grid differs from the first's


class BigEarthNet(FormatBase):
    """BigEarthNet v2 patches: a folder with one GeoTIFF a band, or one of all, and `meta.json` with labels.

    The place is the patch. Where the published metadata.parquet (patch_id, split) lies in root or above it, it says
    the parts.
    """

    format: Literal["bigearthnet"]
    imagery: Imagery = Imagery(dtype="uint16", bands={"B04": 0.665, "B03": 0.560, "B02": 0.490}, scale=1 / 3500)
    stack: str = "s2.tif"  # the file of all bands, in patches that have no file a band
    stack_bands: list[str] = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]

    @model_validator(mode="after")
    def _stack_has_bands(self) -> BigEarthNet:
        missing = [band for band in self.imagery.bands if band not in self.stack_bands]
        if missing:
            raise ValueError(f"stack_bands lacks {', '.join(missing)}, which imagery.bands asks for")
        return self


class NumberMaps(SiblingFolders):
    """Images, and rasters of numbers that are predicted from them, in sibling folders."""

    targets: str = "targets"
    georeference: Literal["file", "none"] = "file"  # file: both lie where they say; none: places are not known


class SpaceNet2(NumberMaps):
    """Images of low and of high resolution of the same ground in sibling folders (SpaceNet 2), of the same bands.

    The place is the folder above `images`, then the block of ground that the image lies in, else the image.
    """

    format: Literal["spacenet2"]
    images: str = "MUL"
    targets: str = "PAN-MS"  # MUL-PanSharpen in the set as published
    # Of the images of both folders: 11 bits, coastal blue to the second near infrared of WorldView-2.
    imagery: Imagery = Imagery(
        dtype="uint16",
        bands={
            "B1": 0.425, "B2": 0.480, "B3": 0.545, "B4": 0.605, "B5": 0.660, "B6": 0.725, "B7": 0.833, "B8": 0.950
        },
        scale=1 / 2047,
    )  # fmt: skip
    # file: a target is cut to the ground that its image shows; none: their edges are taken for the same ground
    # (162 px for 650 px, also where they show 648 of them), and each image is a place
    georeference: Literal["file", "none"] = "file"
    place: Literal["folder", "block"] = "block"


class Measured(Section):
    """What the numbers of a target raster are: a stored value times `scale` plus `offset` is what is predicted."""

    dtype: Literal["float32", "uint8", "uint16", "int16"] = "float32"
    scale: PositiveFloat = 1.0
    offset: float = 0.0
    nodata: StoredValue | None = None  # stored value (.nan too) that means "not measured": neither learned nor scored
    unit: str = ""  # t/ha, m, …; shown in pictures

    @model_validator(mode="after")
    def _nodata_can_be_stored(self) -> Measured:
        storable(self.nodata, self.dtype)
        return self


class ImageTargets(NumberMaps):
    """Images and rasters of one band of numbers, of the same name, in sibling folders (BioMassters).

    The place is the folder above `images`, else the block of ground that the image lies in, else the image.
    """

    format: Literal["image-targets"]
    target: Measured = Measured()
    chip_px: PositiveInt | None = None  # images are cut into chips of this side; None: images are chips, of one size


class Labels(Section):
    """A CSV table of one row a sample: what it is called, its label and, where `split.column` says so, its part."""

    file: FileBelow = "labels.csv"  # below root
    path: str = "path"  # column: the image, or a sample's folder, below root
    label: str = "label"  # column: a class; several between separators (multilabel); a number (regression)
    separator: Annotated[str, Field(min_length=1)] = "|"  # between the labels of one sample
    unit: str = ""  # of numbers; shown in pictures


class Placed(FormatBase):
    """Samples that lie anywhere below root."""

    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known
    # block: of ground that the sample lies in, or the sample itself where that is not known; folder: the one above it
    place: Literal["block", "folder"] = "block"
    block_km: PositiveFloat = 1.0  # side of a block of ground; neighbouring samples touch


class LabelsTable(Placed):
    """Images anywhere below root and a CSV table of their labels."""

    format: Literal["labels-table"]
    labels: Labels = Labels()


DATE_DIRECTIVES = {"%Y": 4, "%m": 2, "%d": 2, "%j": 3, "%H": 2, "%M": 2, "%S": 2}  # digits of each


class DatedFolders(Placed, Masks):
    """A folder a sample, with one GeoTIFF a date of the same ground; its label in a table, or a map beside the dates.

    A date that holds nothing but nodata is a missing date.
    """

    format: Literal["dated-folders"]
    date: str = "%Y-%m-%d"  # what in a file's name is its date; other letters mean themselves: MSIL2A_%Y%m%dT
    files: str = "*.tif"  # names of a sample's dates, * for any letters; other files are not looked at
    labels: Labels | None = None  # table of classes, or of a number a sample
    target_file: str | None = None  # instead: the map in each sample's folder, class ids or numbers for every pixel
    target: Measured = Measured()  # of a map of numbers

    @model_validator(mode="after")
    def _date_can_be_read(self) -> DatedFolders:
        found = [f"%{letter}" for letter in self.date.split("%")[1:] for letter in letter[:1] or [""]]
        unknown = [one for one in found if one not in DATE_DIRECTIVES]
        if unknown or "%Y" not in found or len(set(found)) < len(found):
            known = ", ".join(DATE_DIRECTIVES)
            raise ValueError(f"date = {self.date}: must hold %Y and may hold others of {known}, each once")
        return self

    @model_validator(mode="after")
    def _one_target(self) -> DatedFolders:
        if (self.labels is None) == (self.target_file is None):
            raise ValueError("give either labels (a table) or target_file (a map in each folder), not both or neither")
        if self.target_file is not None and self.split.column is not None:
            raise ValueError("split.column names a column of the labels table, but there is none; give places")
        return self


class GivenParts(PlaceSplit):
    """Of a data set that says the part of each sample itself: only what happens where parts meet is to be declared."""

    @model_validator(mode="after")
    def _one_rule_each(self) -> GivenParts:
        if self.column is not None or self.test or self.val or self.test_share or self.val_share:
            raise ValueError("the data set says the part of every sample; leave test, val, their shares and column out")
        return self


class GeoBench2Samples(ClassMap):
    """GEO-Bench-2's data sets as published: tortillas (or tacos) in root, a sample of several files each.

    Each sample carries its part, and its label, or the map of its classes or numbers is one of its files.
    """

    format: Literal["geobench-2"]
    split: GivenParts = GivenParts()
    files: str = "*.tortilla"  # names of the containers directly in root, * for any letters
    missing_parts: Literal["error", "report"] = "error"  # where a data set of several parts (NAME.0000.part…) lacks one
    # Names of a sample's files that are its image, * for any letters. Several are its dates, in the order of the data
    # set (or of these names); a sensor of other bands is a task of its own.
    images: list[str] = Field(min_length=1)
    label_field: str | None = None  # field of a sample's metadata that holds its class, or its classes
    target_file: str | None = None  # instead: name of the file that holds a class id or a number for every pixel
    target: Measured = Measured()  # of a target_file of numbers
    # file: a GeoTIFF lies where it says; none: places are not known, or made up (biomassters)
    georeference: Literal["file", "none"] = "file"

    @model_validator(mode="after")
    def _one_target(self) -> GeoBench2Samples:
        if (self.label_field is None) == (self.target_file is None):
            raise ValueError("give either label_field (of the metadata) or target_file (of each sample)")
        return self


Format = Annotated[
    ClassFolders
    | ImageMasks
    | Oscd
    | BigEarthNet
    | SpaceNet2
    | ImageTargets
    | LabelsTable
    | DatedFolders
    | GeoBench2Samples,
    Field(discriminator="format"),
]
