"""Downstream tasks: their data, and how a model is adapted to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gfm.params.imagery import Imagery, storable
from gfm.params.pretraining import Schedule
from gfm.params.section import Ascending, Below, Different, Listed, Section, Seed, Share, StoredValue

CLASS_MAPS = ("segmentation", "change")  # kinds that give every pixel a class
NUMBER_MAPS = ("super-resolution", "regression")  # kinds that give every pixel numbers


class PlaceSplit(Section):
    """Which places train, validate and test. A place is what the format says: an area, a city, a block of tiles."""

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
    """One folder of images per class (UC Merced). The place is the image."""

    format: Literal["class-folders"]
    georeference: Literal["file", "none"] = "file"  # file: a GeoTIFF lies where it says; none: places are not known


class ImageMasks(FormatBase):
    """Images and masks of the same name in sibling folders (WHU Aerial, hot-buildings).

    The place is the folder above `images`, then the block of slippy-map tiles where names carry their numbers.
    """

    format: Literal["image-masks"]
    images: str = "images"
    masks: str = "masks"
    classes: Annotated[list[str], Different] = Field(default=["background", "foreground"], min_length=2)
    foreground: Literal["exact", "above-zero"] = (
        "exact"  # exact: mask values are class ids; above-zero: any value > 0 is class 1
    )
    # file: a GeoTIFF lies where it says; slippy: by the tile numbers in the name; none: places are not known
    georeference: Literal["file", "none", "slippy"] = "file"
    block_tiles: PositiveInt = 4  # side of a block of slippy-map tiles that is one place
    chip_px: PositiveInt | None = None  # images are cut into chips of this side; None: images are chips, of one size
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


class NumberMaps(FormatBase):
    """Images, and rasters of numbers that are predicted from them, in sibling folders."""

    images: str = "images"
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
    block_km: PositiveFloat = 1.0  # side of a block of ground that is one place; neighbouring images touch


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

    The place is the folder above `images`, else the image.
    """

    format: Literal["image-targets"]
    target: Measured = Measured()
    chip_px: PositiveInt | None = None  # images are cut into chips of this side; None: images are chips, of one size


Format = Annotated[
    ClassFolders | ImageMasks | Oscd | BigEarthNet | SpaceNet2 | ImageTargets, Field(discriminator="format")
]


class FinetuneSchedule(Schedule):
    """The published fine-tuning's learning rates, of head and encoder alike; layer_decay lowers those of layers below.

    A layer's rate is its share of the head's rate at every step.
    """

    base_lr: PositiveFloat = 1e-4
    warmup_lr: NonNegativeFloat = 1e-7
    warmup_epochs: NonNegativeFloat = 20
    # As the published code: the share counts twice in the base rate, once in warmup_lr and in min_lr, so that a layer
    # whose base rate is below min_lr learns faster and faster. Only to repeat the published numbers.
    paper_compat: bool = False


class FullFinetuning(Section):
    """Every weight learns. Published for classification: 0.9, 0.1, mixup 0.8, cutmix 1, smoothing 0.1, `schedule`."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # a layer's learning rate over that of the layer above it
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = (
        None  # of the last block, from 0 at the first; None: as made
    )
    mixup: NonNegativeFloat = 0.0  # alpha: images are blended, and their labels (arXiv 1710.09412); 0: not
    cutmix: NonNegativeFloat = 0.0  # alpha: a box comes from another image (arXiv 1905.04899); 0: not
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: FinetuneSchedule | None = None  # None: lr, encoder_lr and warmup_share

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0


class Knn(Section):
    """Nothing learns: training images vote for those they are like, weighted by exp(cosine / temperature)."""

    neighbours: list[PositiveInt] = Field(default=[1, 5, 10, 20], min_length=1)  # validation chooses; one: as given
    temperature: PositiveFloat = 0.07  # as Wu et al. 2018 and DINO


class Lora(Section):
    """Small matrices beside frozen linear layers learn (LoRA, arXiv 2106.09685), at encoder_lr; the head at lr."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0  # what the matrices add is scaled by alpha / rank
    targets: list[str] = Field(default=["qkv", "proj"], min_length=1)  # own names of linear layers in the network


Mode = Literal["full", "frozen", "linear", "knn", "lora"]


class Finetune(Section):
    """How a model is adapted to a task."""

    # full: every weight learns; frozen: the head alone, on flipped and turned images; linear: one linear layer on
    # pooled features that are computed once; knn: nearest neighbours of those features; lora: adapters and the head
    mode: Mode = "full"
    seeds: list[NonNegativeInt] = Field(default=[0, 1, 2], min_length=1)
    epochs: PositiveInt = 20
    max_steps_per_epoch: PositiveInt | None = None  # a fixed budget of steps, whatever the size of the set
    batch_size: PositiveInt = 32
    lr: PositiveFloat = 1e-3  # of the head
    encoder_lr: PositiveFloat = 3e-4  # of the encoder (full) or its adapters (lora)
    weight_decay: NonNegativeFloat = 0.01
    warmup_share: Share = 0.1  # of all steps; then cosine to zero
    class_weights: Literal["none", "root-inverse"] = "root-inverse"  # of pixel tasks: by the classes' training shares
    workers: NonNegativeInt = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    full: FullFinetuning = FullFinetuning()
    knn: Knn = Knn()
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _seeds_differ(self) -> Finetune:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds names a seed twice; the same run twice is no second opinion")
        return self

    @model_validator(mode="after")
    def _settings_are_used(self) -> Finetune:
        for section in ("full", "knn", "lora"):
            if self.mode != section and self._differs(section):
                raise ValueError(
                    f"{section} has no meaning with mode = {self.mode}; leave it out or set mode = {section}"
                )
        return self

    @model_validator(mode="after")
    def _full_fits(self) -> Finetune:
        schedule = self.full.schedule
        if schedule is not None:
            for key in ("lr", "encoder_lr", "warmup_share"):
                if self._differs(key):
                    raise ValueError(f"{key} has no meaning beside full.schedule; leave out one of them")
            if schedule.warmup_epochs > self.epochs:
                raise ValueError(
                    f"full.schedule.warmup_epochs = {schedule.warmup_epochs:g} is more than epochs = {self.epochs}"
                )
        if self.full.mixes and self.batch_size % 2:
            raise ValueError(
                f"batch_size = {self.batch_size} is odd, but full.mixup and full.cutmix mix images in pairs"
            )
        return self

    def at(self, lr: float, batch_size: int) -> Finetune:
        """The same with the highest rate `lr` and this batch size; all other rates keep their ratio to it."""
        changed = self.model_dump() | {"batch_size": batch_size}
        schedule = self.full.schedule
        rates, names = (
            (changed, ("lr", "encoder_lr"))
            if schedule is None
            else (changed["full"]["schedule"], ("base_lr", "warmup_lr", "min_lr"))
        )
        ratio = lr / rates[names[0]]
        rates |= {name: rates[name] * ratio for name in names} | {names[0]: lr}
        return Finetune.model_validate(changed)

    def _differs(self, key: str) -> bool:
        # Not whether it was given: a file written with every value spelled out means the same.
        return bool(getattr(self, key) != type(self).model_fields[key].default)


class Search(Section):
    """Learning rate and batch size found by trials that validation scores, for each model, before the seeds run.

    The number of trials is GEO-Bench-2's. Every trial has the epochs that `finetune` says.
    """

    trials: PositiveInt = 16
    # The head's highest rate, on a logarithmic scale; finetune's encoder_lr (or its schedule) keeps its ratio to it.
    lr: Annotated[tuple[PositiveFloat, PositiveFloat], Listed, Ascending] = (1e-5, 1e-2)
    batch_sizes: Annotated[list[PositiveInt], Different] = Field(default=[8, 16, 32], min_length=1)
    seed: Seed = 0  # of what is tried, and of the training in every trial


class Task(Section):
    """One downstream task: what is predicted, from which data, how the model is adapted."""

    kind: Literal["classification", "multilabel", "segmentation", "change", "super-resolution", "regression"]
    data: Format
    image_px: PositiveInt = 96  # side that chips are resized to for the encoder; masks and targets keep their own size
    positive_class: str | None = None  # report F1/IoU of this class (change, buildings); None: mean over classes
    # What chooses the epoch and enters ARP; None: accuracy, micro_map of several labels, psnr of super-resolution,
    # r2 of regression. Segmentation and change have their own.
    metric: Literal["accuracy", "mean_class_accuracy", "micro_map", "macro_map", "psnr", "ssim", "r2"] | None = None
    loss: Literal["l1", "mse"] | None = None  # of super-resolution (None: l1) and regression (None: mse)
    finetune: Finetune = Finetune()
    search: Search | None = None  # None: finetune's own lr and batch_size, for every model
    too_small: str = ""  # why no conclusion may be drawn from this set; printed beside its scores

    @model_validator(mode="after")
    def _fits(self) -> Task:
        fitting = _FORMATS[self.kind]
        if self.data.format not in fitting:
            raise ValueError(f"a {self.kind} task reads {' or '.join(fitting)}, not {self.data.format}")
        scored = _METRICS.get(self.kind, ())
        if self.metric is not None and self.metric not in scored:
            fix = f"takes {' or '.join(scored)}" if scored else "is scored by IoU or F1; leave it out"
            raise ValueError(f"metric = {self.metric}: a {self.kind} task {fix}")
        if isinstance(self.data, ImageMasks) and self.positive_class not in (None, *self.data.classes):
            raise ValueError(f"positive_class = {self.positive_class} is not one of {', '.join(self.data.classes)}")
        if self.kind in NUMBER_MAPS and self.positive_class is not None:
            raise ValueError(f"positive_class = {self.positive_class}: a {self.kind} task has no classes; leave it out")
        if self.kind not in NUMBER_MAPS and self.loss is not None:
            raise ValueError(f"loss = {self.loss} is for {' and '.join(NUMBER_MAPS)}; leave it out")
        return self

    @model_validator(mode="after")
    def _searches(self) -> Task:
        if self.search is None:
            return self
        if self.finetune.mode == "knn":
            raise ValueError("search has no meaning with finetune.mode = knn, where nothing learns; leave it out")
        odd = [size for size in self.search.batch_sizes if size % 2]
        if odd and self.finetune.full.mixes:
            raise ValueError(
                f"search.batch_sizes names {odd[0]}, an odd number, but finetune.full.mixup and cutmix mix in pairs"
            )
        return self

    @model_validator(mode="after")
    def _adapts(self) -> Task:
        if self.kind in ("classification", "multilabel"):
            return self
        mode, full = self.finetune.mode, self.finetune.full
        if mode in ("linear", "knn"):
            raise ValueError(
                f"finetune.mode = {mode} is for classification and multilabel; "
                f"a {self.kind} task takes frozen, lora or full"
            )
        if full.mixes or full.label_smoothing:
            raise ValueError(
                "finetune.full.mixup, cutmix and label_smoothing are for classification and multilabel, "
                f"not for a {self.kind} task; leave them out"
            )
        return self


_FORMATS = {
    "classification": ("class-folders", "image-masks"),
    "multilabel": ("bigearthnet",),
    "segmentation": ("image-masks",),
    "change": ("oscd",),
    "super-resolution": ("spacenet2",),
    "regression": ("image-targets",),
}
_METRICS = {
    "classification": ("accuracy", "mean_class_accuracy"),
    "multilabel": ("micro_map", "macro_map"),
    "super-resolution": ("psnr", "ssim"),
    "regression": ("r2",),
}
