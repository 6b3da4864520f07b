"""Networks: architectures, their normalisation, the teacher and the student."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gfm.params.section import Different, Licence, LocalFile, Name, Scalar, Section, Sha256, Share

# Arguments of timm.create_model that say more than what the network is.
NOT_OF_THE_NETWORK = (
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "features_only",
    "in_chans",
    "num_classes",
    "img_size",
)
DROP_RATES = ("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate")


class Architecture(Section):
    """A timm architecture: `timm.create_model(name, **args)`."""

    name: str = "swin_base_patch4_window7_224"
    args: dict[
        str, Scalar | list[Scalar]
    ] = {}  # timm model arguments; `img_size` is set from `image_px` where timm takes it
    image_px: PositiveInt = 192  # side of the square input

    @model_validator(mode="after")
    def _names_a_network_and_no_weights(self) -> Architecture:
        if ":" in self.name:
            raise ValueError(f"name = {self.name}: give timm's own name; weights from elsewhere are a kind of encoder")
        taken = [key for key in NOT_OF_THE_NETWORK if key in self.args]
        if taken:
            raise ValueError(
                f"args.{taken[0]} is not the network's: weights, bands and image size have keys of their own"
            )
        for rate in DROP_RATES:
            value = self.args.get(rate, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"args.{rate} = {value}: is a share from 0 to below 1")
        return self


class Normalisation(Section):
    """Per-band mean and standard deviation of values in [0, 1] that an encoder was trained with."""

    mean: list[Share] = [0.485, 0.456, 0.406]
    std: list[Annotated[float, Field(gt=0, le=1)]] = [0.229, 0.224, 0.225]


class SupervisedTeacher(Section):
    """A small teacher trained here, from labels that the collection's class-folder sources carry."""

    kind: Literal["supervised"]
    architecture: Architecture
    normalisation: Normalisation = Normalisation()
    # labelled sources of the collection to learn from
    sources: Annotated[list[Name], Different] = Field(min_length=1)
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05


class TimmEncoder(Section):
    """A published timm model with its pretrained weights: from a local safetensors file, or from the hub."""

    kind: Literal["timm"]
    architecture: Architecture
    normalisation: Normalisation = Normalisation()
    weights: Literal["hub"] | LocalFile
    sha256: Sha256 | None = None  # of the local file, which must be given: DVC does not watch the file itself
    batch_norm: Literal["live", "frozen"] = "live"  # frozen: statistics are folded or must not move when fine-tuned
    licence: Licence

    @model_validator(mode="after")
    def _file_is_pinned(self) -> TimmEncoder:
        if self.weights != "hub" and self.sha256 is None:
            raise ValueError("sha256 is missing; give that of the weights file, so that another file is noticed")
        if self.weights == "hub" and self.sha256 is not None:
            raise ValueError("sha256 is for a local weights file; timm checks what it fetches from the hub")
        return self


class CheckpointEncoder(Section):
    """A published checkpoint (.pth or safetensors), read as `gfm import` reads it."""

    kind: Literal["checkpoint"]
    file: LocalFile
    sha256: Sha256  # DVC does not watch the file itself
    licence: Licence
    # Whose keys it has, with an architecture that is read from them; None: those of GFM, SimMIM, Swin, or timm's own.
    family: Literal["clay", "dofa", "prithvi", "satlas", "satmae", "seco"] | None = None
    architecture: str | None = None  # timm's name; not needed for a Swin or a family
    image_px: PositiveInt | None = None  # side of the images to fit it to
    window: PositiveInt | None = None  # a Swin's window to fit it to, in cells
    entry: str | None = None  # that holds the weights, where several could
    prefix: str | None = None  # of the network's keys, where several networks are
    bands: list[str] | None = None  # None: R, G, B
    normalisation: Normalisation | None = None  # None: that of natural images
    wavelengths_um: list[PositiveFloat] | None = None  # of the bands; DOFA's and Clay's weights are made for them
    gsd_m: PositiveFloat | None = None  # metres of ground a pixel; Clay's positions are made for them

    @model_validator(mode="after")
    def _family_fits(self) -> CheckpointEncoder:
        if self.family is None:
            return self
        for key in ("architecture", "window"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} is read from the weights of family {self.family}; leave it out")
        if self.family == "dofa" and (self.bands is None or self.wavelengths_um is None):
            raise ValueError("family dofa needs bands and wavelengths_um: its patch embedding is generated for them")
        if self.family == "clay" and None in (self.bands, self.wavelengths_um, self.gsd_m):
            raise ValueError("family clay needs bands, wavelengths_um and gsd_m: what it adds is generated for them")
        return self


class RegisteredEncoder(Section):
    """A version of the project's own registered model, as `gfm pretrain` registered it.

    A number never means other weights; what an alias means is looked up when the encoder is made, and DVC does not see
    that it has moved.
    """

    kind: Literal["registered"]
    version: PositiveInt | Literal["champion", "challenger"]
    model: Name | None = None  # None: tracking.registered_model


Teacher = Annotated[SupervisedTeacher | TimmEncoder, Field(discriminator="kind")]
PublishedEncoder = Annotated[TimmEncoder | CheckpointEncoder | RegisteredEncoder, Field(discriminator="kind")]


class Student(Section):
    """The network that is pretrained; also the untrained baseline `random`."""

    architecture: Architecture = Architecture()
    normalisation: Normalisation = Normalisation()
