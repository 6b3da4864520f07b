"""The typed schema of params.yaml: every parameter, its default, and one sentence on what it does.

`load(path)` reads a parameter file; the first wrong key, type or combination is one line that names the key.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from gfm.errors import GfmError

PARAMS_FILE = Path("params.yaml")

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
StoredValue = Annotated[float, Field(allow_inf_nan=True)]  # floating-point imagery marks nodata with nan
# Names become folder names, MLflow names and DVC stage names, so they stay plain.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Scalar = bool | int | float | str


class LocalFile(str):
    """A path in a parameter file, relative to that file's folder (`gfm workspace` rewrites exactly these)."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))

    @property
    def path(self) -> Path:
        return Path(self)


class ParameterError(GfmError):
    """A parameter file that cannot be used; the message is one line naming the file, the key and the fix."""


class Section(BaseModel):
    """A group of parameters; unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Paths(Section):
    """Where the user's data lies."""

    raw: LocalFile = LocalFile("data/raw")  # folder of raw imagery; every source and task root is relative to it


class Imagery(Section):
    """What the pixels of a source or task are, as stored; files that differ are refused by name.

    A stored value times `scale` lies in [0, 1], where 1 is the white of a picture (255 in 8-bit imagery,
    a reflectance of about 0.35 in Sentinel-2); what exceeds it is clipped. Encoders normalise from there.
    """

    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"
    bands: dict[str, PositiveFloat | None] = {"R": 0.665, "G": 0.560, "B": 0.490}  # name -> wavelength, um; file order
    scale: PositiveFloat = 1 / 255
    nodata: StoredValue | None = None  # stored value that means "no measurement" in every band


# ---------------------------------------------------------------- pretraining collection


class SourceBase(Section):
    """One place that pretraining images come from (a declaration, not code)."""

    root: str  # folder under paths.raw
    imagery: Imagery = Imagery()
    gsd_m: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = (
        None  # metres a pixel, or a range; None: from the file
    )
    licence: str
    citation: str = ""
    composite: dict[str, str] = {}  # which stored band stands for each of geopile.bands, where the names differ
    include: list[str] = []  # glob patterns under root; empty: the format's own
    limit: PositiveInt | None = None  # keep at most so many tiles, chosen by hash

    def stored_bands(self, bands: list[str]) -> list[str]:
        """The stored bands that fill the collection's `bands`, in that order."""
        return [self.composite.get(band, band) for band in bands]


class ScenesSource(SourceBase):
    """Georeferenced GeoTIFF scenes, cut into tiles by windowed reading."""

    format: Literal["scenes"]


class ClassFoldersSource(SourceBase):
    """Images in one folder per class (RSD46-WHU, MLRSNet, RESISC45, PatternNet)."""

    format: Literal["class-folders"]


class ImagesSource(SourceBase):
    """A flat folder of images, optionally named by slippy-map tile numbers (`NAME-X-Y-ZOOM.png`)."""

    format: Literal["images"]
    georeference: Literal["none", "slippy"] = "none"


class BandFilesSource(SourceBase):
    """Scenes stored as one GeoTIFF a band (`…_B04.tif`), resampled to the first declared band's grid."""

    format: Literal["band-files"]


Source = Annotated[
    ScenesSource | ClassFoldersSource | ImagesSource | BandFilesSource,
    Field(discriminator="format"),
]


class Quality(Section):
    """Images below these limits are dropped and counted with the reason."""

    min_entropy_bits: NonNegativeFloat = 1.0  # Shannon entropy of the grey histogram, 0-8 bits
    max_nodata_share: Share = 0.1  # share of pixels equal to nodata in every band
    min_px: PositiveInt = 32  # shorter side of a usable image


class Geopile(Section):
    """The pretraining collection: sources -> tiles -> quality -> duplicates -> shards + manifest."""

    bands: list[str] = Field(default=["R", "G", "B"], min_length=1)  # of each stored image, in this order
    tile_px: PositiveInt = 256  # side of tiles cut from scenes
    shard_mb: PositiveFloat = 64.0  # a shard is closed when it passes this size
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = (
        95  # of tiles cut from scenes; image files are kept as they are
    )
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = (
        3  # dHash Hamming distance that counts as the same picture
    )
    workers: NonNegativeInt = 0  # processes; 0: as many as cores
    quality: Quality = Quality()
    sources: dict[Name, Source] = Field(min_length=1)


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


# ---------------------------------------------------------------- models


class Architecture(Section):
    """A timm architecture: `timm.create_model(name, **args)`."""

    name: str = "swin_base_patch4_window7_224"
    args: dict[
        str, Scalar | list[Scalar]
    ] = {}  # timm model arguments; `img_size` is set from `image_px` where timm takes it
    image_px: PositiveInt = 192  # side of the square input


class Normalisation(Section):
    """Per-band mean and standard deviation of values in [0, 1] that an encoder was trained with."""

    mean: list[float] = [0.485, 0.456, 0.406]
    std: list[PositiveFloat] = [0.229, 0.224, 0.225]


class SupervisedTeacher(Section):
    """A small teacher trained here, from labels that the collection's class-folder sources carry."""

    kind: Literal["supervised"]
    architecture: Architecture
    normalisation: Normalisation = Normalisation()
    sources: list[Name] = Field(min_length=1)  # labelled sources of the collection to learn from
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05


class TimmTeacher(Section):
    """A published timm model with its pretrained weights: from a local safetensors file, or from the hub."""

    kind: Literal["timm"]
    architecture: Architecture
    normalisation: Normalisation = Normalisation()
    weights: Literal["hub"] | LocalFile
    sha256: str | None = None  # of the local file, which must be given: DVC does not watch the file itself
    batch_norm: Literal["live", "frozen"] = "live"  # frozen: statistics are folded or must not move when fine-tuned
    licence: str

    @model_validator(mode="after")
    def _file_is_pinned(self) -> TimmTeacher:
        if self.weights != "hub" and self.sha256 is None:
            raise ValueError("sha256 is missing; give that of the weights file, so that another file is noticed")
        if self.weights == "hub" and self.sha256 is not None:
            raise ValueError("sha256 is for a local weights file; timm checks what it fetches from the hub")
        return self


Teacher = Annotated[SupervisedTeacher | TimmTeacher, Field(discriminator="kind")]


class Student(Section):
    """The network that is pretrained; also the untrained baseline `random`."""

    architecture: Architecture = Architecture()
    normalisation: Normalisation = Normalisation()


class Masking(Section):
    """Which parts of the image the student must fill in (SimMIM, section 3.1)."""

    unit: PositiveInt = 32  # side of a masked block, pixels; a multiple of the encoder's stride 32
    ratio: OpenShare = 0.6  # share of blocks masked, rounded up


class Tap(Section):
    """Where features are taken for distillation (GFM, section 4.1: after stage 3 and the merging behind it)."""

    stage: Annotated[int, Field(ge=1, le=4)] = 3
    merged: bool = True  # after the patch merging that follows the stage; only for networks that have one


class Crop(Section):
    """Random resized crop and flip, as published."""

    scale: tuple[OpenShare | Literal[1], OpenShare | Literal[1]] = (0.67, 1)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    flip: Share = 0.5


class Schedule(Section):
    """Cosine per step with linear warm-up; rates hold for `reference_batch` and scale linearly with the batch."""

    base_lr: PositiveFloat = 2e-4
    warmup_lr: NonNegativeFloat = 1e-6
    min_lr: NonNegativeFloat = 1e-5
    warmup_epochs: NonNegativeFloat = 10
    reference_batch: PositiveInt = 512


class Pretraining(Section):
    """One continual pretraining; its key is the model's name."""

    recipe: Literal["gfm"] = "gfm"
    start: Literal["random", "teacher"] = "random"  # the student's first weights; published: random
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 128  # over all processes
    alpha: NonNegativeFloat = 1.0  # weight of the distillation loss
    masking: Masking = Masking()
    student_tap: Tap = Tap()
    teacher_tap: Tap = Tap()
    teacher_px: PositiveInt = 224  # side of the unmasked crop that the teacher sees
    crop: Crop = Crop()
    schedule: Schedule = Schedule()
    weight_decay: NonNegativeFloat = 0.05
    clip_grad: PositiveFloat = 5.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: NonNegativeInt = 2  # data loading processes
    checkpoint_minutes: PositiveFloat = 5.0


# ---------------------------------------------------------------- downstream tasks


class PlaceSplit(Section):
    """Which places train, validate and test. A place is what the format says: an area, a city, a block of tiles."""

    test: list[str] = []  # whole places (or name prefixes up to a `/`) held out for the one final test
    val: list[str] = []
    val_share: Share = 0.0  # of the other places, by hash, when `val` is empty
    test_share: Share = 0.0  # likewise, when `test` is empty

    @model_validator(mode="after")
    def _one_rule_each(self) -> PlaceSplit:
        for part in ("test", "val"):
            if bool(getattr(self, part)) == bool(getattr(self, f"{part}_share")):
                raise ValueError(f"give either {part} (names of places) or {part}_share (above 0), not both or neither")
        return self


class FormatBase(Section):
    root: str  # folder under paths.raw
    imagery: Imagery = Imagery()
    split: PlaceSplit


class ClassFolders(FormatBase):
    """One folder of images per class (UC Merced). The place is the image."""

    format: Literal["class-folders"]


class ImageMasks(FormatBase):
    """Images and masks of the same name in sibling folders (WHU Aerial, hot-buildings).

    The place is the folder above `images`, then the block of slippy-map tiles where names carry their numbers.
    """

    format: Literal["image-masks"]
    images: str = "images"
    masks: str = "masks"
    classes: list[str] = Field(default=["background", "foreground"], min_length=2)
    foreground: Literal["exact", "above-zero"] = (
        "exact"  # exact: mask values are class ids; above-zero: any value > 0 is class 1
    )
    georeference: Literal["none", "slippy"] = "none"
    block_tiles: PositiveInt = 4  # side of a block of slippy-map tiles that is one place
    presence_share: Share = 0.0  # classification of presence: the smallest foreground share that counts as present


class Oscd(FormatBase):
    """Onera Satellite Change Detection's own layout: a GeoTIFF a band and date, change masks. The place is the city."""

    format: Literal["oscd"]
    imagery: Imagery = Imagery(dtype="uint16", bands={"B04": 0.665, "B03": 0.560, "B02": 0.490}, scale=1 / 3500)
    chip_px: PositiveInt = 96  # cities are cut into chips of this side; edges are padded and not scored
    align: Literal["error", "resample"] = "error"  # what to do where the second date's grid differs from the first's


class BigEarthNet(FormatBase):
    """BigEarthNet v2 patches: a folder with one GeoTIFF a band, or one of all, and `meta.json` with labels.

    The place is the patch.
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


Format = Annotated[ClassFolders | ImageMasks | Oscd | BigEarthNet, Field(discriminator="format")]


class Finetune(Section):
    """How a model is adapted to a task."""

    seeds: list[NonNegativeInt] = Field(default=[0, 1, 2], min_length=1)
    epochs: PositiveInt = 20
    max_steps_per_epoch: PositiveInt | None = None  # a fixed budget of steps, whatever the size of the set
    batch_size: PositiveInt = 32
    lr: PositiveFloat = 1e-3  # of the head
    encoder_lr: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 0.01
    warmup_share: Share = 0.1  # of all steps; then cosine to zero
    class_weights: Literal["none", "root-inverse"] = "root-inverse"  # of pixel tasks: by the classes' training shares
    workers: NonNegativeInt = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    @model_validator(mode="after")
    def _seeds_differ(self) -> Finetune:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds names a seed twice; the same run twice is no second opinion")
        return self


class Task(Section):
    """One downstream task: what is predicted, from which data, how the model is adapted."""

    kind: Literal["classification", "multilabel", "segmentation", "change"]
    data: Format
    image_px: PositiveInt = 96  # side that chips are resized to; masks keep their own size for scoring
    positive_class: str | None = None  # report F1/IoU of this class (change, buildings); None: mean over classes
    finetune: Finetune = Finetune()
    too_small: str = ""  # why no conclusion may be drawn from this set; printed beside its scores

    @model_validator(mode="after")
    def _fits(self) -> Task:
        fitting = {
            "classification": ("class-folders", "image-masks"),
            "multilabel": ("bigearthnet",),
            "segmentation": ("image-masks",),
            "change": ("oscd",),
        }[self.kind]
        if self.data.format not in fitting:
            raise ValueError(f"a {self.kind} task reads {' or '.join(fitting)}, not {self.data.format}")
        if isinstance(self.data, ImageMasks) and self.positive_class not in (None, *self.data.classes):
            raise ValueError(f"positive_class = {self.positive_class} is not one of {', '.join(self.data.classes)}")
        return self


class Evaluate(Section):
    """The results table and its uncertainty."""

    baseline: Name = "teacher"  # the model that ARP compares with
    bootstrap: PositiveInt = 2000  # resamples of the seeds
    confidence: OpenShare = 0.95


# ---------------------------------------------------------------- tracking


class Tracking(Section):
    """Where runs are recorded."""

    uri: str = "sqlite:///mlflow.db"  # or the address of a tracking server
    experiment: str = "gfm"
    registered_model: Name = "gfm-encoder"


class Carbon(Section):
    """How energy becomes kg CO2eq."""

    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USA"  # of the grid, for codecarbon
    intensity_kg_per_kwh: PositiveFloat | None = None  # a stated intensity; None: codecarbon's for the country


class Params(Section):
    """The whole parameter file."""

    seed: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    paths: Paths = Paths()
    geopile: Geopile
    splits: Splits = Splits()
    validation: Validation = Validation()
    teacher: Teacher
    student: Student = Student()
    pretrain: dict[Name, Pretraining] = Field(min_length=1)
    tasks: dict[Name, Task] = Field(min_length=1)
    models: list[Name] = ["random", "teacher", "gfm"]  # compared on every task
    evaluate: Evaluate = Evaluate()
    tracking: Tracking = Tracking()
    carbon: Carbon = Carbon()

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        for name, source in self.geopile.sources.items():
            for band in source.composite:
                if band not in self.geopile.bands:
                    raise ValueError(f"geopile.sources.{name}.composite.{band} is not one of geopile.bands")
            missing = [band for band in source.stored_bands(self.geopile.bands) if band not in source.imagery.bands]
            if missing:
                raise ValueError(
                    f"geopile.sources.{name}.imagery.bands lacks {', '.join(missing)}, which geopile.bands asks for; "
                    f"it has {', '.join(source.imagery.bands)}: add it, or say in geopile.sources.{name}.composite "
                    f"which stored band stands for it"
                )
        if isinstance(self.teacher, SupervisedTeacher):
            for name in self.teacher.sources:
                if name not in self.geopile.sources:
                    raise ValueError(f"teacher.sources names {name}, which is not in geopile.sources")
                if not isinstance(self.geopile.sources[name], ClassFoldersSource):
                    raise ValueError(
                        f"teacher.sources names {name}, which carries no labels (format is not class-folders)"
                    )
        known = {"random", "teacher", *self.pretrain}
        for reserved in ("random", "teacher"):
            if reserved in self.pretrain:
                raise ValueError(f"pretrain.{reserved} is a reserved model name; choose another")
        for name in self.models:
            if name not in known:
                raise ValueError(f"models names {name}; known are {', '.join(sorted(known))}")
        if len(set(self.models)) != len(self.models):
            raise ValueError("models names a model twice")
        if self.evaluate.baseline not in self.models:
            raise ValueError(f"evaluate.baseline = {self.evaluate.baseline} is not one of models")
        for name, run in self.pretrain.items():
            if run.masking.unit % 32:
                near = max(32, run.masking.unit // 32 * 32)
                raise ValueError(
                    f"pretrain.{name}.masking.unit = {run.masking.unit} is not a multiple of the backbone's stride 32; "
                    f"use {near} or {near + 32}"
                )
            if self.student.architecture.image_px % run.masking.unit:
                raise ValueError(
                    f"student.architecture.image_px = {self.student.architecture.image_px} is not a multiple of "
                    f"pretrain.{name}.masking.unit = {run.masking.unit}"
                )
            if run.start == "teacher" and self.student.architecture.name != self.teacher.architecture.name:
                raise ValueError(
                    f"pretrain.{name}.start = teacher needs the student to have the teacher's architecture"
                )
        bands = len(self.geopile.bands)
        for where, norm in (("teacher", self.teacher.normalisation), ("student", self.student.normalisation)):
            if len(norm.mean) != bands or len(norm.std) != bands:
                raise ValueError(
                    f"{where}.normalisation has {len(norm.mean)} means and {len(norm.std)} stds for {bands} bands"
                )
        for name, task in self.tasks.items():
            if len(task.data.imagery.bands) < bands:
                raise ValueError(f"tasks.{name}.data.imagery has fewer bands than geopile.bands")
        return self


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises ParameterError with one line that names the file, the key and what would be right.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParameterError(f"{path}: no such file; run in a folder that has one, or give --params FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: cannot be read: {error}") from None
    try:
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ParameterError(f"{path}: not valid YAML: {_yaml_problem(error)}") from None
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ParameterError(f"{path}: must hold a mapping of parameters, but holds {what}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParameterError(f"{path}: {_first_line(error, raw)}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; a parameter given twice is an error here."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = "a list or mapping cannot be a key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or error}"
    return " ".join(str(error).split())


# What pydantic says of a type, in the words of somebody who writes YAML; each continues "KEY = VALUE: must be ...".
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys",
    "model": "a mapping of keys",
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_-]*$": "a name of letters, digits, - and _",
    r"^[A-Z]{3}$": "three capital letters, such as FRA",
}


def _first_line(error: ValidationError, raw: dict[str, Any]) -> str:
    found = [(_keys(entry, raw), entry) for entry in error.errors()]
    first = found[0][0]
    others = len({tuple(keys) for keys, _ in found if keys[: len(first)] != first})
    # Every branch of a union complains; the one that went deepest into the value is the one that was meant.
    below = [(keys, entry) for keys, entry in found if keys[: len(first)] == first]
    deepest = max((keys for keys, _ in below), key=len) if first else first
    told = [_predicate(entry) for keys, entry in below if keys == deepest]
    line = told[0][0] + _any_of(list(dict.fromkeys(reason for _, reason in told)))
    key = ".".join(deepest)
    return (key + line if key else line.removeprefix(": ")) + (f" (and {others} more)" if others else "")


def _keys(entry: Any, raw: Any) -> list[str]:
    """The location of an error as the keys that stand in the file, without pydantic's labels of union branches."""
    keys: list[str] = []
    value, location = raw, entry["loc"]
    for number, part in enumerate(location, start=1):
        if part == "[key]":
            continue
        if number == len(location) and entry["type"] in ("missing", "extra_forbidden"):
            keys.append(str(part))
        elif isinstance(value, dict) and part in (value.get("format"), value.get("kind")):
            continue
        elif (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]
            keys.append(str(part))
    return keys


def _predicate(entry: Any) -> tuple[str, str]:
    """What is wrong with the value at a key: how to go on after the key, and the reason."""
    kind, context, value = entry["type"], entry.get("ctx", {}), entry["input"]
    if kind == "extra_forbidden":
        return ": ", "unknown key"
    if kind == "missing":
        return " ", "is missing"
    if kind == "value_error":
        return ": ", entry["msg"].removeprefix("Value error, ")
    if kind == "union_tag_not_found":
        return f".{context['discriminator'].strip(chr(39))} ", "is missing"
    if kind == "union_tag_invalid":
        tags = context["expected_tags"].replace("'", "")
        return f".{context['discriminator'].strip(chr(39))} = {context['tag']!r}: ", f"must be one of {tags}"
    if value is None:
        return " ", "is empty: give a value, or leave the key out"
    shown = repr(value)
    start = f" = {shown}: " if len(shown) < 60 else ": "
    if kind in ("too_short", "too_long"):
        bound, limit = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        count = context[limit]
        return start, f"needs at {bound} {count} {'entry' if count == 1 else 'entries'}, not {context['actual_length']}"
    if kind == "string_too_short":
        return start, "must not be empty"
    if kind in ("string_type", "invalid_key"):
        return start, "must be text" + (" in quotes" if isinstance(value, bool | int | float) else "")
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return start, f"must be {_PATTERNS[context['pattern']]}"
    if kind.split("_")[0] in _KINDS:
        return start, f"must be {_KINDS[kind.split('_')[0]]}"
    return start, entry["msg"].replace("Input should", "must")


def _any_of(reasons: list[str]) -> str:
    """What the branches of a union ask for, as one sentence."""
    if len(reasons) > 1 and all(reason.startswith("must be ") for reason in reasons):
        *most, last = (reason.removeprefix("must be ") for reason in reasons)
        return f"must be {', '.join(most)} or {last}"
    return " or ".join(reasons)


def rebase(raw: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """The same parameter file, moved: every LocalFile made relative to folder `new` instead of `old`."""
    params = Params.model_validate(raw)

    def walk(values: Any, model: Any) -> Any:
        if isinstance(model, LocalFile):
            path = Path(model)
            return str(path) if path.is_absolute() else os.path.relpath((old / path).resolve(), new.resolve())
        if isinstance(model, BaseModel) and isinstance(values, dict):
            return {k: walk(v, getattr(model, k)) for k, v in values.items()}
        if isinstance(model, dict) and isinstance(values, dict):
            return {k: walk(v, model[k]) for k, v in values.items()}
        return values

    return walk(raw, params)  # type: ignore[no-any-return]
