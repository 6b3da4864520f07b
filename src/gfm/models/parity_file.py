"""A parity file: weights and input of one small model of the published code, and what that code computed from them."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gfm.errors import GfmError
from gfm.models.published import COMPUTED

# What every file must hold under `expected/`, in the order in which it is computed.
QUANTITIES = (
    "encoder_map",
    "student_feature",
    "teacher_feature",
    "reconstruction",
    "loss_mim",
    "loss_feat",
    "loss",
    "grad_norm",
)
INPUTS = ("image", "mask")
MASK = "input/mask"  # of any type, zeros and ones
FOLDERS = ("state", "input", "expected", "grad")
PRECISE = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Swin:
    """One of the two networks, as the published code builds it. Stages are counted from the finest."""

    image_px: int
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int  # side in patches; smaller where a stage's map is
    patch_px: int
    bands: int
    mlp_ratio: float
    qkv_bias: bool

    @property
    def stride(self) -> int:
        """Pixels a cell of the last map."""
        return self.patch_px << (len(self.depths) - 1)

    def __str__(self) -> str:
        return (
            f"{self.image_px} px, {self.bands} bands, width {self.embed_dim}, depths {_slashed(self.depths)}, "
            f"heads {_slashed(self.num_heads)}, window {self.window}, patch {self.patch_px} px"
        )


@dataclass(frozen=True, slots=True)
class ParityFile:
    """A parity file that holds together; names are the published code's, floats are float32 unless said."""

    path: Path
    student: Swin
    teacher: Swin
    alpha: float
    image: Tensor  # (B, C, H, W), normalised
    mask: Tensor  # (B, h, w), bool, True where masked
    state: dict[str, Tensor]  # parameters, and buffers that are computed here
    expected: dict[str, Tensor]  # exactly QUANTITIES, as stored
    gradients: dict[str, Tensor]  # of parameters, as stored; at least one
    not_needed: dict[str, str]  # metadata that decides nothing here


def read_parity_file(path: Path) -> ParityFile:
    """Read a parity file and check that nothing in it is missing, unknown, imprecise or not a number.

    GfmError names the file and the metadata key or tensor. Whether the state fits the networks is seen when it is
    loaded (`gfm.models.parity.published_model`).
    """
    raw, tensors = _load(path)
    parts: dict[str, dict[str, Tensor]] = {folder: {} for folder in FOLDERS}
    for key, tensor in tensors.items():
        folder, _, name = key.partition("/")
        if folder not in parts or not name:
            raise GfmError(f"{path}: {key}: not a key of a parity file; keys begin with {'/, '.join(FOLDERS)}/")
        if tensor.dtype not in PRECISE and key != MASK and not COMPUTED.search(name):
            raise GfmError(f"{path}: {key} is {tensor.dtype}, which cannot show an error of 1e-4; store it as float32")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise GfmError(f"{path}: {key} holds NaN or infinity; nothing can be compared with it")
        parts[folder][name] = tensor
    _exactly(path, "input", parts["input"], INPUTS)
    _exactly(path, "expected", parts["expected"], QUANTITIES)
    if not parts["grad"]:
        raise GfmError(f"{path}: no gradient is stored; write at least one tensor under grad/")
    metadata = _Metadata(path, raw)
    student = _network(path, metadata, parts["state"], prefix="", part="encoder")
    teacher = _network(path, metadata, parts["state"], prefix="teacher_", part="teacher")
    if teacher.bands != student.bands:
        raise GfmError(f"{path}: state/ has a student of {student.bands} bands and a teacher of {teacher.bands}")
    stride = metadata.whole("encoder_stride")
    if stride != student.stride:
        raise GfmError(
            f"{path}: encoder_stride = {stride}, but {len(student.depths)} stages over patches of "
            f"{student.patch_px} px end at stride {student.stride}"
        )
    return ParityFile(
        path=path,
        student=student,
        teacher=teacher,
        alpha=metadata.number("alpha"),
        image=_image(path, parts["input"]["image"], student),
        mask=_mask(path, parts["input"]["mask"], parts["input"]["image"], student, metadata.whole("mask_patch")),
        state={
            name: value.float() if value.is_floating_point() else value
            for name, value in sorted(parts["state"].items())
        },
        expected=parts["expected"],
        gradients=dict(sorted(parts["grad"].items())),
        not_needed=metadata.left(),
    )


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as stored:
            return stored.metadata() or {}, {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise GfmError(f"{path}: no such file; give a parity file") from None
    except (OSError, SafetensorError) as error:
        raise GfmError(f"{path}: not a readable safetensors file: {' '.join(str(error).split())}") from None


def _exactly(path: Path, folder: str, found: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
    for name in names:
        if name not in found:
            raise GfmError(f"{path}: {folder}/{name} is missing; a parity file has {folder}/ {', '.join(names)}")
    for name in found:
        if name not in names:
            raise GfmError(f"{path}: {folder}/{name}: unknown; a parity file has {folder}/ {', '.join(names)}")


class _Metadata:
    """The file's metadata, texts that are Python literals; remembers which keys nobody asked for."""

    def __init__(self, path: Path, raw: dict[str, str]) -> None:
        self.path = path
        self.raw = raw
        self.asked: set[str] = set()

    def left(self) -> dict[str, str]:
        return {key: value for key, value in sorted(self.raw.items()) if key not in self.asked}

    def whole(self, key: str) -> int:
        value = self._value(key)
        if not _is_whole(value):
            raise self._odd(key, "a whole number above 0")
        return int(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        value = self._value(key)
        if not isinstance(value, list | tuple) or not all(_is_whole(entry) for entry in value):
            raise self._odd(key, "a list of whole numbers above 0, one a stage")
        return tuple(value)

    def number(self, key: str) -> float:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._odd(key, "a finite number")
        return float(value)

    def own_or(self, key: str, other: str) -> str:
        """`key` where the file has it, else `other`."""
        return key if key in self.raw else other

    def _value(self, key: str) -> Any:
        self.asked.add(key)
        if key not in self.raw:
            raise GfmError(f"{self.path}: {key} is missing from the metadata; write the file again with it")
        try:
            return ast.literal_eval(self.raw[key].strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise self._odd(key, "a number or a list of numbers") from None

    def _odd(self, key: str, wanted: str) -> GfmError:
        return GfmError(f"{self.path}: {key} = {self.raw[key]!r} in the metadata: must be {wanted}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _network(path: Path, metadata: _Metadata, state: Mapping[str, Tensor], *, prefix: str, part: str) -> Swin:
    """One network: its size from the metadata, the rest from the shapes of its tensors.

    The published code gives both networks one width, depths and heads; a file may give the teacher its own.
    """
    keys = {key: metadata.own_or(prefix + key, key) for key in ("embed_dim", "depths", "num_heads")}
    image_key, window_key = f"{prefix}img_size", f"{prefix}window_size"
    depths, heads = metadata.wholes(keys["depths"]), metadata.wholes(keys["num_heads"])
    projection = _shape(path, state, f"{part}.patch_embed.proj.weight", 4)
    first = _shape(path, state, f"{part}.layers.0.blocks.0.mlp.fc1.weight", 2)
    network = Swin(
        image_px=metadata.whole(image_key),
        embed_dim=metadata.whole(keys["embed_dim"]),
        depths=depths,
        num_heads=heads,
        window=metadata.whole(window_key),
        patch_px=projection[2],
        bands=projection[1],
        mlp_ratio=first[0] / first[1],
        qkv_bias=any(name.startswith(f"{part}.") and name.endswith(".attn.qkv.bias") for name in state),
    )
    if not 2 <= len(depths) <= 4:
        raise GfmError(f"{path}: {keys['depths']} has {len(depths)} stages; 2 to 4 are understood")
    if len(heads) != len(depths):
        raise GfmError(f"{path}: {keys['num_heads']} has {len(heads)} stages, {keys['depths']} has {len(depths)}")
    if projection[0] != network.embed_dim:
        raise GfmError(
            f"{path}: {keys['embed_dim']} = {network.embed_dim}, but state/{part}.patch_embed.proj.weight has width "
            f"{projection[0]}"
        )
    if network.image_px % network.stride:
        raise GfmError(
            f"{path}: {image_key} = {network.image_px} is no multiple of the last stage's {network.stride} px"
        )
    for stage, count in enumerate(heads):
        if network.embed_dim * 2**stage % count:
            raise GfmError(
                f"{path}: {keys['num_heads']}: {count} heads do not divide stage {stage + 1}'s width "
                f"{network.embed_dim * 2**stage}"
            )
        side = network.image_px // network.patch_px // 2**stage
        if side > network.window and side % network.window:
            raise GfmError(
                f"{path}: {window_key} = {network.window} does not divide stage {stage + 1}'s {side} x {side} patches"
            )
    return network


def _shape(path: Path, state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in state:
        raise GfmError(f"{path}: state/{name} is missing; a parity file holds the whole state dict")
    shape = tuple(state[name].shape)
    if len(shape) != axes or not all(shape):
        raise GfmError(f"{path}: state/{name} is {shape}, not a weight of {axes} axes")
    return shape


def _image(path: Path, image: Tensor, network: Swin) -> Tensor:
    side = network.image_px
    if image.ndim != 4 or tuple(image.shape[1:]) != (network.bands, side, side) or not len(image):
        raise GfmError(
            f"{path}: input/image is {tuple(image.shape)}; img_size and state/encoder.patch_embed.proj.weight ask for "
            f"(B, {network.bands}, {side}, {side})"
        )
    return image.float()


def _mask(path: Path, mask: Tensor, image: Tensor, network: Swin, unit: int) -> Tensor:
    """The mask, bool; its cells are patches or larger, and masked in whole squares of `unit` pixels."""
    patches = network.image_px // network.patch_px
    side = mask.shape[-1] if mask.ndim == 3 else 0
    if not side or tuple(mask.shape) != (len(image), side, side) or patches % side:
        raise GfmError(
            f"{path}: input/mask is {tuple(mask.shape)}; one cell a patch is ({len(image)}, {patches}, {patches})"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise GfmError(f"{path}: input/mask holds other values than 0 and 1")
    cell = network.image_px // side
    cells = unit // cell
    if network.image_px % unit or unit % cell:
        raise GfmError(f"{path}: mask_patch = {unit} does not fit {network.image_px} px in mask cells of {cell} px")
    blocks = mask[:, ::cells, ::cells]
    if not torch.equal(blocks.repeat_interleave(cells, 1).repeat_interleave(cells, 2), mask):
        raise GfmError(f"{path}: input/mask is not made of squares of mask_patch = {unit} px")
    return mask.bool()


def _slashed(numbers: tuple[int, ...]) -> str:
    return "/".join(map(str, numbers))
