"""Encoders as everything downstream uses them: images in [0, 1] in, a feature pyramid out; loading and saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone, freeze_batch_norm, pyramid, pyramid_levels, set_image_px, takes_img_size
from gfm.models.encoder_file import CONFIG, WEIGHTS, EncoderCard, read_card, write_card
from gfm.models.sparse_swin import drop_shift
from gfm.models.weights_hash import sha256_of

__all__ = ["Encoder", "EncoderCard", "check_keys", "load_encoder", "read_weights", "save_encoder"]


class Encoder(nn.Module):
    """A timm network that normalises its input and gives feature maps from fine to coarse.

    forward takes a float image (B, C, H, W) in [0, 1], C = len(bands), and returns maps (B, Ci, Hi, Wi) with
    Ci = channels[i] and Hi = H / strides[i]. `backbone` is the plain timm network, whose state dict is what is saved.
    """

    def __init__(self, backbone: nn.Module, card: EncoderCard, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.card = card
        self.name = name
        self.bands = list(card.bands)
        self.levels = pyramid_levels(backbone)
        self.channels = tuple(level.channels for level in self.levels)
        self.strides = tuple(level.stride for level in self.levels)
        self.register_buffer("mean", torch.tensor(card.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, -1, 1, 1), persistent=False)
        self.frozen = False
        self.train()  # Lightning keeps the modes it finds: a frozen batch norm must be in eval mode from the start

    def normalise(self, image: Tensor) -> Tensor:
        """(image - mean) / std, band by band."""
        return (image - self.mean) / self.std  # type: ignore[operator]

    def denormalise(self, image: Tensor) -> Tensor:
        """image * std + mean, band by band."""
        return image * self.std + self.mean  # type: ignore[operator]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature pyramid of an image (B, C, H, W) in [0, 1]."""
        return pyramid(self.backbone, self.levels, self.normalise(image))

    def freeze(self) -> None:
        """Hold every weight and statistic: no gradients, and evaluation mode whatever `train` is asked for."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """Training mode, in which a frozen batch norm keeps its statistics and a frozen encoder does not change."""
        super().train(mode and not self.frozen)
        if self.card.batch_norm == "frozen":
            freeze_batch_norm(self.backbone)
        return self


def load_encoder(folder: Path, *, image_px: int, seed: int, drop_path: float | None = None) -> Encoder:
    """Read an encoder for square images of `image_px`; `drop_path` replaces the rate that its card names.

    An encoder of random origin is drawn from `seed`; any other must find exactly its own weights, by the SHA-256 in its
    card, else WeightsError names the keys or shapes that differ. Position tables and windows adapt to `image_px` after
    the strict loading.
    """
    card = read_card(folder)
    args = card.model_args if drop_path is None else {**card.model_args, "drop_path_rate": drop_path}
    backbone = build_backbone(card.architecture, args, image_px=card.image_px, bands=len(card.bands), seed=seed)
    path = folder / WEIGHTS
    if card.origin != "random":
        state = read_weights(path)
        check_keys(backbone, state, str(path))
        if card.model_sha256 and sha256_of(path) != card.model_sha256:
            raise WeightsError(f"{path}: not the weights that {folder / CONFIG} names; make the encoder again")
        backbone.load_state_dict(state, strict=True)
    elif path.exists():
        raise WeightsError(f"{path}: weights of an encoder whose config.json says random; make the encoder again")
    if card.unshifted_stages:
        drop_shift(backbone, card.unshifted_stages)
    if image_px != card.image_px:
        set_image_px(backbone, image_px)
    return Encoder(backbone, card, folder.name)


def save_encoder(folder: Path, model: nn.Module, card: EncoderCard) -> None:
    """Write `config.json` and `model.safetensors`, the state dict of a plain headless timm network.

    Equal weights and an equal card give the same bytes: what depends on an encoder depends on its config.json alone.
    """
    if getattr(model, "num_classes", 0):
        raise ValueError(f"{type(model).__name__} still has its classifier; save encoders headless")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{WEIGHTS}.new"
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, unfinished)
    card = replace(card, model_sha256=sha256_of(unfinished))
    write_card(folder, card, fixed_px=takes_img_size(card.architecture))
    unfinished.chmod((folder / CONFIG).stat().st_mode)  # safetensors makes files that only their owner can read
    unfinished.replace(folder / WEIGHTS)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; half precision becomes float32."""
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; make the encoder again") from None
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def check_keys(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError unless `state` holds exactly the model's tensors, each of the model's shape."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    problems = [
        f"{what} {_few(keys)}"
        for what, keys in (("lacks", missing), ("has unknown", unexpected), ("has", shapes))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{source}: not the weights of this {type(model).__name__}: {'; '.join(problems)}; "
            "check the architecture's name and args"
        )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
