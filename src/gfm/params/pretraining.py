"""Continual pretraining: what every training has, and one section for each recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gfm.params.section import Ascending, Different, Listed, Name, OpenShare, Section, Seed, Share


class Masking(Section):
    """Which parts of the image the student must fill in (SimMIM, section 3.1)."""

    unit: PositiveInt = 32  # side of a masked block, pixels; a multiple of the encoder's stride 32
    ratio: OpenShare = 0.6  # share of blocks masked, rounded up


class Tap(Section):
    """Where features are taken for distillation (GFM, section 4.1: after stage 3 and the merging behind it)."""

    stage: Annotated[int, Field(ge=1, le=4)] = 3
    merged: bool = True  # after the patch merging that follows the stage; only for networks that have one

    @property
    def place(self) -> tuple[int, bool]:
        """Both together, as the models take them."""
        return self.stage, self.merged


class Crop(Section):
    """Random resized crop and flip, as published."""

    scale: Annotated[tuple[OpenShare | Literal[1], OpenShare | Literal[1]], Listed, Ascending] = (0.67, 1)
    ratio: Annotated[tuple[PositiveFloat, PositiveFloat], Listed, Ascending] = (3 / 4, 4 / 3)
    flip: Share = 0.5
    interpolation: Literal["antialiased", "linear"] = "antialiased"  # as published, or about three times as fast


class Schedule(Section):
    """Cosine per step with linear warm-up; rates hold for `reference_batch` and scale linearly with the batch."""

    base_lr: PositiveFloat = 2e-4
    warmup_lr: NonNegativeFloat = 1e-6
    min_lr: NonNegativeFloat = 1e-5
    warmup_epochs: NonNegativeFloat = 10
    reference_batch: PositiveInt = 512

    @model_validator(mode="after")
    def _base_is_the_highest(self) -> Schedule:
        for name, rate in (("warmup_lr", self.warmup_lr), ("min_lr", self.min_lr)):
            if rate > self.base_lr:
                raise ValueError(f"{name} = {rate:g} is above base_lr = {self.base_lr:g}, the highest rate; lower it")
        return self


class Budget(Section):
    """What a training may use; at the first limit it stops with a valid checkpoint and says so."""

    hours: PositiveFloat | None = None
    kwh: PositiveFloat | None = None
    kg_co2eq: PositiveFloat | None = None


class Probe(Section):
    """How good the representation is, seen while training: kNN and a linear probe on labelled images.

    The images come from class-folder sources of the collection: training rows to learn from, held-out rows to test.
    """

    sources: Annotated[list[str], Different] = Field(min_length=1)  # labelled sources of the collection
    every_epochs: PositiveInt = 10
    images: PositiveInt = 2000  # at most so many to learn from, and so many to test on
    neighbours: PositiveInt = 20


class PretrainingBase(Section):
    """What every recipe has."""

    seed: Seed | None = None  # of all that it draws but the probe's images; None: the file's seed
    without: Name | None = None  # one of geopile.leave_out: train on the collection without this source
    start: Literal["random", "teacher"] = "random"  # the student's first weights; published: random
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 128  # images an optimiser step, over all processes
    accumulate: PositiveInt = 1  # parts that a process takes its share of a batch in; more need less memory
    # leave out a training image at least so alike (cosine of the teacher's features) to one that is kept; None: none is
    duplicate_cosine: OpenShare | None = None
    crop: Crop = Crop()
    schedule: Schedule = Schedule()
    weight_decay: NonNegativeFloat = 0.05
    clip_grad: PositiveFloat = 5.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    sharding: Literal["none", "full"] = "none"  # full: parameters and optimiser are divided among processes
    compile: bool = False  # torch.compile of student and losses
    checkpoint_activations: bool = False  # recompute the stages' activations in the backward pass: less memory
    ema_decay: OpenShare | None = None  # keep an exponential moving average of the weights, and save that
    workers: NonNegativeInt = 2  # data loading processes
    decoded_cache: bool = False  # decode the images once, to disk: about ten times the bytes of the shards, said first
    decoded_px: PositiveInt | None = None  # in the cache: larger images are resized once to this shorter side
    resize_on: Literal["loader", "device"] = "loader"  # of the training's crops; device: for a GPU that waits for them
    reduced_decoding: bool = False  # of JPEGs twice as large as crops need, at 1/2, 1/4 or 1/8: slightly other crops
    checkpoint_minutes: PositiveFloat = 5.0
    checkpoint_steps: PositiveInt | None = None  # also after every so many steps
    keep_checkpoints: PositiveInt = 1  # the last so many stay until the training ends
    probe: Probe | None = None
    budget: Budget = Budget()


class FollowsTeacher(Section):
    """How a student follows the frozen teacher."""

    alpha: NonNegativeFloat = 1.0  # weight of the distillation loss
    student_tap: Tap = Tap()
    teacher_tap: Tap = Tap()
    teacher_px: PositiveInt = 224  # side of the unmasked crop that the teacher sees
    cached_crops: NonNegativeInt = 0  # see each image in so many fixed crops, whose teacher features are computed once


class GfmPretraining(PretrainingBase, FollowsTeacher):
    """The published method: fill in masked blocks, and follow the teacher."""

    recipe: Literal["gfm"]
    masking: Masking = Masking()


class SimmimPretraining(PretrainingBase):
    """Masked image modelling without a teacher (SimMIM)."""

    recipe: Literal["simmim"]
    masking: Masking = Masking()


class SimmimContinualPretraining(PretrainingBase):
    """Masked image modelling from the teacher's own weights, without following it."""

    recipe: Literal["simmim-continual"]
    start: Literal["teacher"] = "teacher"
    masking: Masking = Masking()


class DistillPretraining(PretrainingBase, FollowsTeacher):
    """Follow the teacher on whole images; nothing is masked."""

    recipe: Literal["distill"]


class UnitDecoder(Section):
    """The small transformer that fills in masked blocks from the visible ones."""

    width: PositiveInt = 256
    depth: PositiveInt = 1
    heads: PositiveInt = 8


class GfmFastPretraining(PretrainingBase, FollowsTeacher):
    """The published objectives where masked blocks are never computed and the teacher's features are cached.

    For Swin; the mask unit must be whole tokens of every stage.
    """

    recipe: Literal["gfm-fast"]
    masking: Masking = Masking()
    cached_crops: NonNegativeInt = 8
    decoder: UnitDecoder = UnitDecoder()


Pretraining = Annotated[
    GfmPretraining | SimmimPretraining | SimmimContinualPretraining | DistillPretraining | GfmFastPretraining,
    Field(discriminator="recipe"),
]
