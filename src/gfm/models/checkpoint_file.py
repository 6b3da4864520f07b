"""A checkpoint made elsewhere, read without running anything of it: its weights, and what else it holds."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gfm.errors import WeightsError

# Where training codes put the weights; the first level of a file may hold the second.
WEIGHTS_ENTRIES = ("model", "state_dict", "module", "student")
TRAINING_ENTRIES = frozenset(
    {"optimizer", "lr_scheduler", "scheduler", "scaler", "amp", "epoch", "step", "iteration", "args", "version"}
    | {"config", "cfg", "max_accuracy", "best_acc", "best_acc1", "metric", "arch", "loss_scaler"}
    | {"optimizers", "optimizer_states", "lr_schedulers", "global_step", "hparams", "hyper_parameters", "callbacks"}
    | {"loops", "pytorch-lightning_version"}
)
# Settings that published checkpoints carry (`config` of Swin, SimMIM and GFM). torch's restricted reader looks names
# up in a table and imports nothing; these names give it a type that it allows anyway, so nothing new can be called.
SETTINGS_TYPES = ("yacs.config.CfgNode", "argparse.Namespace")
# What torch.load raises for bytes that are no checkpoint, beside UnpicklingError.
UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of a file as they are stored, and the names of everything that lies beside them."""

    path: Path
    entry: str  # where the weights lie, for example `model`; empty: at the top
    state: dict[str, Tensor]
    beside: dict[str, str]  # entry -> what it is


def read_checkpoint(path: Path, key: str | None) -> Checkpoint:
    """Read a PyTorch checkpoint or a safetensors file; which one it is shows in its first bytes.

    The weights are the entry `key`, else the one of WEIGHTS_ENTRIES that holds tensors, else the top level.
    WeightsError for anything unreadable, for pickled objects beyond tensors, plain values and SETTINGS_TYPES, and for
    entries of a state dict that are not dense tensors with values.
    """
    content = _read(path)
    node, where = content, []
    beside: dict[str, str] = {}
    if key is not None:
        if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
            raise WeightsError(f"{path}: has no set of weights under {key}; it holds {_names(content)}")
        beside |= _others(content, key, "")
        node, where = content[key], [key]
    while inner := _weights_entries(node):
        if len(inner) > 1:
            raise WeightsError(f"{path}: holds several sets of weights, {', '.join(inner)}; choose one with --key")
        beside |= _others(node, inner[0], ".".join(where))
        node = node[inner[0]]
        where.append(inner[0])
    return Checkpoint(path, ".".join(where), _tensors(node, path, where, beside), beside)


def _read(path: Path) -> Any:
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; give the checkpoint file in it")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; give the path of a checkpoint file") from None
    if not start:
        raise WeightsError(f"{path}: an empty file; fetch it again")
    if start[8:] == b"{":
        return _read_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):  # torch.save since 1.6, and before
        return _read_torch(path)
    raise WeightsError(f"{path}: neither a PyTorch checkpoint nor a safetensors file: it starts with {start!r}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (*UNREADABLE, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}; fetch it again") from None


def _read_torch(path: Path) -> Any:
    try:
        _check_sums(path)
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(OrderedDict, name) for name in SETTINGS_TYPES]),
        ):
            warnings.simplefilter("ignore")  # about the age of the file's format
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise WeightsError(f"{path}: not a readable PyTorch checkpoint: {_short(error)}; fetch it again") from None
        raise WeightsError(
            f"{path}: holds Python objects of type {refused[1]}, whose loading could run code, so it is not read; if "
            "you trust the file, keep its tensors alone: safetensors.torch.save_file(torch.load(FILE, "
            "weights_only=False, map_location='cpu')['model'], 'weights.safetensors'), and import that"
        ) from None
    except UNREADABLE as error:
        raise WeightsError(f"{path}: not a readable PyTorch checkpoint: {_short(error)}; fetch it again") from None


def _check_sums(path: Path) -> None:
    """Compare every record of a zip file with its checksum, which torch.load does not do."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} differs from its checksum")


def _weights_entries(node: Any, depth: int = 3) -> list[str]:
    """The entries of WEIGHTS_ENTRIES that hold tensors, or hold such an entry themselves."""
    if depth == 0 or not isinstance(node, Mapping):
        return []
    return [
        name
        for name in WEIGHTS_ENTRIES
        if isinstance(entry := node.get(name), Mapping) and (_has_tensors(entry) or _weights_entries(entry, depth - 1))
    ]


def _has_tensors(node: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in node.values())


def _others(node: Mapping[Any, Any], chosen: str, where: str) -> dict[str, str]:
    """What the entries beside the chosen one are."""
    return {
        f"{where}.{name}".removeprefix("."): _kind(str(name), value) for name, value in node.items() if name != chosen
    }


def _kind(name: str, value: Any) -> str:
    if name in TRAINING_ENTRIES:
        return "training state"
    if isinstance(value, Mapping) and (_has_tensors(value) or _weights_entries(value)):
        return "another set of weights"
    return "beside the weights"


def _tensors(node: Any, path: Path, where: list[str], beside: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of a state dict; training state that lies among them goes to `beside`."""
    if not isinstance(node, Mapping) or not _has_tensors(node):
        raise WeightsError(f"{path}: holds no weights, but {_names(node)}; give the entry that does with --key")
    state = {}
    for name, value in node.items():
        shown = ".".join([*where, str(name)])
        if not isinstance(value, Tensor):
            if name not in TRAINING_ENTRIES:
                raise WeightsError(f"{path}: {shown} is a {type(value).__name__} among the weights, not a tensor")
            beside[shown] = "training state"
        elif not isinstance(name, str):
            raise WeightsError(f"{path}: a tensor is named {name!r}; names of parameters are text")
        elif value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise WeightsError(f"{path}: {name} is sparse, quantised or without values; save it as a dense tensor")
        else:
            state[name] = value.detach()
    return state


def _names(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [str(name) for name in content]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "nothing"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:160] or type(error).__name__
