"""Downstream tasks: their data, and how a model is adapted to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gfm.params.formats import DatedFolders, Format, GeoBench2Samples, ImageMasks, LabelsTable
from gfm.params.pretraining import Schedule
from gfm.params.section import Ascending, Different, Listed, Name, Section, Seed, Share

CLASS_MAPS = ("segmentation", "change")  # kinds that give every pixel a class
NUMBERS = ("super-resolution", "regression")  # kinds that predict numbers instead of classes


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
    # Own names of linear layers or 1x1 convolutions in the network.
    targets: list[str] = Field(default=["qkv", "proj"], min_length=1)


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


class Dates(Section):
    """Samples of several dates: the encoder sees each date, and its features are reduced over time (as Satlas)."""

    # Of a batch. A sample of more gives so many, evenly spread from its first to its last; of one of fewer, what is
    # missing takes no part in the reduction.
    number: Annotated[int, Field(ge=2)]
    reduce: Literal["mean", "max"] = "mean"


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
    dates: Dates | None = None  # of dated-folders, and of geobench-2 where samples have several
    finetune: Finetune = Finetune()
    search: Search | None = None  # None: finetune's own lr and batch_size, for every model
    # The task that this one repeats in another mode: both stand side by side, and ARP counts the named one alone.
    variant_of: Name | None = None

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
        if self.kind in NUMBERS and self.positive_class is not None:
            raise ValueError(f"positive_class = {self.positive_class}: a {self.kind} task has no classes; leave it out")
        if self.kind not in NUMBERS and self.loss is not None:
            raise ValueError(f"loss = {self.loss} is for {' and '.join(NUMBERS)}; leave it out")
        return self

    @model_validator(mode="after")
    def _dates_fit(self) -> Task:
        dated = isinstance(self.data, DatedFolders)
        if dated and self.dates is None:
            raise ValueError("dates is missing: dated-folders hold several a sample; give dates: {number: N}")
        if self.dates is not None and not (dated or isinstance(self.data, GeoBench2Samples)):
            raise ValueError(
                f"dates is for dated-folders and geobench-2; a {self.data.format} sample has one of its own"
            )
        if isinstance(self.data, DatedFolders):
            if self.kind in ("classification", "multilabel") and self.data.labels is None:
                raise ValueError(f"a {self.kind} task takes data.labels, a table, instead of data.target_file")
            if self.kind == "segmentation" and self.data.target_file is None:
                raise ValueError("a segmentation task takes data.target_file, a mask in each folder")
            if self.kind == "segmentation" and self.positive_class not in (None, *self.data.classes):
                known = ", ".join(self.data.classes)
                raise ValueError(f"positive_class = {self.positive_class} is not one of {known}")
        if self.dates is not None and self.finetune.full.mixes:
            raise ValueError("finetune.full.mixup and cutmix blend images of one date; leave them out beside dates")
        return self

    @model_validator(mode="after")
    def _samples_fit(self) -> Task:
        if not isinstance(self.data, GeoBench2Samples):
            return self
        labelled = self.kind in ("classification", "multilabel")
        if labelled != (self.data.label_field is not None):
            given = "label_field" if labelled else "target_file"
            raise ValueError(f"a {self.kind} task of geobench-2 takes data.{given}")
        if self.kind in CLASS_MAPS and len(self.data.classes) < 2:
            raise ValueError("data.classes is missing: name the classes of target_file, two or more")
        if self.positive_class is not None and self.positive_class not in (self.data.classes or [self.positive_class]):
            known = ", ".join(self.data.classes)
            raise ValueError(f"positive_class = {self.positive_class} is not one of {known}")
        return self

    @property
    def labels_images(self) -> bool:
        """Whether a sample has one label or number as a whole, not one a pixel."""
        return self.kind in ("classification", "multilabel") or self.numbers_images

    @property
    def numbers_images(self) -> bool:
        """Whether a sample has one number as a whole."""
        table = isinstance(self.data, LabelsTable) or (
            isinstance(self.data, DatedFolders) and self.data.labels is not None
        )
        return self.kind == "regression" and table

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
        if mode == "knn" or (mode == "linear" and not self.numbers_images):
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
    "classification": ("class-folders", "image-masks", "labels-table", "dated-folders", "geobench-2"),
    "multilabel": ("bigearthnet", "labels-table", "dated-folders", "geobench-2"),
    "segmentation": ("image-masks", "dated-folders", "geobench-2"),
    "change": ("oscd",),
    "super-resolution": ("spacenet2",),
    "regression": ("image-targets", "labels-table", "dated-folders", "geobench-2"),
}
_METRICS = {
    "classification": ("accuracy", "mean_class_accuracy"),
    "multilabel": ("micro_map", "macro_map"),
    "super-resolution": ("psnr", "ssim"),
    "regression": ("r2",),
}
