"""A checkpoint made elsewhere as a headless timm network, with a line on what became of every key of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone, set_image_px, takes_img_size
from gfm.models.checkpoint_file import Checkpoint
from gfm.models.encoder import check_keys
from gfm.models.families import Images, Layout, family_seen, read_family, refuse_matter
from gfm.models.published import COMPUTED, timm_name
from gfm.models.swin_shape import LANDMARK, read_swin

WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, torch.compile, LightningModules
BESIDE_ENCODER = {  # parts of a published SimMIM or GFM checkpoint, after WRAPPERS
    "teacher.": "frozen teacher",
    "decoder.": "decoder of the reconstruction",
    "projector.": "projector of the distillation",
}
PUBLISHED_CLASSIFIER = "head."  # of Swin and SimMIM; timm has `head.fc.`

Fate = Literal["mapped", "resized", "converted", "left"]


@dataclass(frozen=True, slots=True)
class KeyFate:
    """What became of one key of a checkpoint."""

    key: str  # as it stands in the file
    fate: Fate
    parameter: str  # of the timm network; empty where the key was left
    shape: tuple[int, ...] | None  # in the file; None for what is no tensor of the weights
    new_shape: tuple[int, ...] | None  # in the network
    dtype: str  # in the file; the network's floats are float32
    reason: str  # why it was left, or how it was resized or converted


@dataclass(frozen=True, slots=True)
class Request:
    """What the user says of a checkpoint; None: as the checkpoint, or its architecture, has it."""

    architecture: str | None  # timm's name
    image_px: int | None
    window: int | None  # cells a side, of a Swin
    bands: int | None
    prefix: str | None  # of the network's keys
    family: str | None = None  # of `gfm.models.families`, whose keys are not timm's
    wavelengths_um: list[float] | None = None  # of the bands, for families that read them
    gsd_m: float | None = None  # metres a pixel, likewise


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A headless timm network that holds a checkpoint's weights, and how it is built again."""

    backbone: nn.Module
    architecture: str
    model_args: dict[str, Any]
    image_px: int
    bands: int
    prefix: str  # of the keys that were taken
    weights_px: int  # image size that the weights were made for
    size_from: str  # what shows it; empty: the network takes any size
    resizing: str  # what was done to fit another image size or window; empty: nothing
    report: list[KeyFate]
    notes: list[str]  # where it differs from the published code


@dataclass(frozen=True, slots=True)
class _Found:
    """The network inside a checkpoint, before any resizing."""

    prefix: str
    architecture: str
    args: dict[str, Any]
    bands: int
    sizes: list[int]  # image sizes that the weights may have been made for, the likeliest first
    image_px: int  # wanted
    window: int | None  # of the weights; None: not a Swin
    size_from: str


def import_network(checkpoint: Checkpoint, request: Request) -> ImportedNetwork:
    """The network of a checkpoint, with exactly its values; half precision becomes float32.

    With `request.family` its keys are that family's (`gfm.models.families`); without it and `request.architecture` it
    must hold a Swin (v1), whose architecture is read from its shapes.
    Another image size or window resizes tables of positions as timm does (`resize_rel_pos_bias_table`, the published
    fine-tuning's geometric spacing). WeightsError for a key that is neither a parameter of the network nor a known
    part of published checkpoints, for a parameter that gets no value or one of another shape, and for values that
    are not finite.
    """
    source = str(checkpoint.path)
    wrapper = _wrapper(checkpoint.state)
    state = {key.removeprefix(wrapper): value for key, value in checkpoint.state.items()}
    if request.family is None:
        refuse_matter(state, source)
        found = _find(state, request, wrapper, source)
        own = _build(found, found.sizes[0])
        targets, left = _sort_keys(state, found.prefix, own, chosen=request.prefix is not None, source=source)
        values = {parameter: state[key] for key, parameter in targets.items()}
        converted, notes = {}, []
    else:
        layout = _layout(state, request, source)
        found = _published(layout, request)
        own = _build(found, found.sizes[0])
        values, targets, left = layout.values, layout.becomes, layout.left
        converted, notes = layout.converted, layout.notes
        unknown = [key for key, name in targets.items() if key not in converted and name not in own.state_dict()]
        if unknown:
            raise WeightsError(_not_known(unknown, own, source))
    backbone, image_px = _filled(found, own, values, source)
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    args, resizing = _fit(backbone, found, image_px, request.window)
    fitted = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    at_top = f"{checkpoint.entry}." if checkpoint.entry else ""
    report = []
    for key, value in state.items():
        parameter = targets.get(key, "")
        resized = parameter in shapes and shapes[parameter] != fitted[parameter]
        done = [converted[key]] if key in converted else []
        done += [resizing] if resized else []
        report.append(
            KeyFate(
                key=f"{at_top}{wrapper}{key}",
                fate="left" if not parameter else "resized" if resized else "converted" if done else "mapped",
                parameter=parameter,
                shape=tuple(value.shape),
                new_shape=fitted.get(parameter),
                dtype=str(value.dtype).removeprefix("torch."),
                reason=left.get(key, ", ".join(done)),
            )
        )
    report += [KeyFate(entry, "left", "", None, None, "", what) for entry, what in checkpoint.beside.items()]
    return ImportedNetwork(
        backbone=backbone,
        architecture=found.architecture,
        model_args=args,
        image_px=found.image_px,
        bands=found.bands,
        prefix=wrapper + found.prefix,
        weights_px=image_px,
        size_from=found.size_from,
        resizing=resizing,
        report=report,
        notes=notes,
    )


def _layout(state: Mapping[str, Tensor], request: Request, source: str) -> Layout:
    """What the declared family makes of the keys; its architecture and windows are in the weights."""
    assert request.family is not None
    for option, value in (("--architecture", request.architecture), ("--window", request.window)):
        if value is not None:
            raise WeightsError(f"{option} {value}: is read from the weights of family {request.family}; leave it out")
    images = Images(request.wavelengths_um, request.gsd_m, request.image_px)
    return read_family(request.family, state, request.prefix, images, source)


def _published(layout: Layout, request: Request) -> _Found:
    known = get_pretrained_cfg(layout.architecture) or PretrainedCfg()
    weights_px = layout.image_px or request.image_px or known.input_size[-1]
    image_px = request.image_px or weights_px
    return _Found("", layout.architecture, layout.args, layout.bands, [weights_px], image_px, None, layout.size_from)


def _wrapper(keys: Iterable[str]) -> str:
    """Prefixes that training codes put before every key."""
    names, wrapper = list(keys), ""
    while found := [w for w in WRAPPERS if all(name.startswith(w) for name in names)]:
        wrapper += found[0]
        names = [name.removeprefix(found[0]) for name in names]
    return wrapper


def _find(state: Mapping[str, Tensor], request: Request, wrapper: str, source: str) -> _Found:
    given = request.prefix
    if given is not None:
        given = f"{given.rstrip('.')}.".removeprefix(wrapper) if given.strip(".") else ""
    name = request.architecture
    if name is not None and not timm.is_model(name):
        raise WeightsError(f"--architecture {name}: timm has none of this name; `timm.list_models()` shows them all")
    if name is None or timm.models.is_model_in_modules(name, ["swin_transformer"]):
        return _find_swin(state, request, given, source)
    return _find_named(state, name, request, given, source)


def _find_swin(state: Mapping[str, Tensor], request: Request, given: str | None, source: str) -> _Found:
    prefixes = _prefixes(state, LANDMARK) if given is None else [given]
    if not prefixes or prefixes[0] + LANDMARK not in state:
        raise WeightsError(
            f"{source}: no Swin (v1) in it: no key ends in {LANDMARK}{f' after {given}' if given else ''}; "
            f"{family_seen(state)}; for another network give timm's name of it with --architecture, or its --family"
        )
    prefix = _only(prefixes, source)
    shape = read_swin(_under(state, prefix), source)
    image_px = request.image_px or shape.image_px
    named = request.architecture is not None
    return _Found(
        prefix=prefix,
        architecture=request.architecture or shape.timm_name,
        args={"window_size": shape.window} if named else shape.args,
        bands=shape.bands,
        sizes=[shape.image_px],
        image_px=image_px,
        window=shape.window,
        size_from=shape.size_from,
    )


def _find_named(state: Mapping[str, Tensor], name: str, request: Request, given: str | None, source: str) -> _Found:
    known = get_pretrained_cfg(name) or PretrainedCfg()
    usual = known.input_size[-1]
    wanted = request.image_px or usual
    if request.window is not None:
        raise WeightsError(f"--window {request.window}: {name} is not a Swin (v1), which alone can be given a window")
    own = list(build_backbone(name, {}, image_px=usual, bands=3, seed=0).state_dict())
    if given is None:
        # A short first name, as ResNet's conv1.weight, is found in many blocks: the most parameters decide.
        matches = {prefix: sum(prefix + key in state for key in own) for prefix in _prefixes(state, own[0])}
        most = max(matches.values(), default=0)
        prefixes = [prefix for prefix, count in matches.items() if count == most]
        if not prefixes:
            raise WeightsError(
                f"{source}: no {name} in it: no key ends in {own[0]}; its first key is {next(iter(state))}; "
                "check --architecture"
            )
        given = _only(prefixes, source)
    first = known.first_conv if isinstance(known.first_conv, str) else ""
    weight = state.get(f"{given}{first}.weight")
    bands = weight.shape[1] if weight is not None and weight.ndim == 4 else request.bands or 3
    sized = takes_img_size(name)
    sizes = list(dict.fromkeys([wanted, usual])) if sized else [wanted]
    size_from = "the tables of positions" if sized else ""
    return _Found(given, name, {}, bands, sizes, wanted, None, size_from)


def _prefixes(keys: Iterable[str], landmark: str) -> list[str]:
    """What stands before a key that every network of a kind has, teachers left aside."""
    found = [key.removesuffix(landmark) for key in keys if key == landmark or key.endswith(f".{landmark}")]
    return [prefix for prefix in found if prefix not in BESIDE_ENCODER]


def _only(prefixes: list[str], source: str) -> str:
    if len(prefixes) > 1:
        shown = ", ".join(prefix or "(none)" for prefix in prefixes)
        raise WeightsError(f"{source}: holds several such networks, under {shown}; choose one with --prefix")
    return prefixes[0]


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _build(found: _Found, image_px: int) -> nn.Module:
    return build_backbone(found.architecture, found.args, image_px=image_px, bands=found.bands, seed=0)


def _sort_keys(
    state: Mapping[str, Tensor], prefix: str, network: nn.Module, *, chosen: bool, source: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Keys with the parameter that each becomes, and keys that are left with the reason; WeightsError for any other.

    `chosen`: the user named the prefix, so what lies outside of it was not asked for.
    """
    own = network.state_dict()
    # timm's first stage merges nothing: a merging there is the published Swin's, which merges at a stage's end.
    published = any(key.startswith(f"{prefix}layers.0.downsample.") for key in state)
    classifiers = (*_classifiers(network), *((PUBLISHED_CLASSIFIER,) if LANDMARK in own else ()))
    targets, left, unknown = {}, {}, []
    for key in state:
        inside = key.startswith(prefix)
        name = key.removeprefix(prefix)
        parameter = timm_name(name) if published else name
        part = next((part for part in BESIDE_ENCODER if key.startswith(part)), None)
        if inside and parameter in own:
            targets[key] = parameter
        elif inside and COMPUTED.search(name):
            left[key] = "buffer that the network computes"
        elif inside and name == "mask_token":
            left[key] = "mask token of the pretraining"
        elif inside and classifiers and name.startswith(classifiers):
            left[key] = "classifier"
        elif not inside and chosen:
            left[key] = "outside the chosen prefix"
        elif part is not None and part != prefix:
            left[key] = BESIDE_ENCODER[part]
        else:
            unknown.append(key)
    if unknown:
        told = "; check --architecture, or name the network's own keys with --prefix"
        raise WeightsError(_not_known(unknown, network, source) + told)
    return targets, left


def _not_known(keys: list[str], network: nn.Module, source: str) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return (
        f"{source}: {', '.join(keys[:3])}{more}: neither a parameter of {type(network).__name__} nor a known part of "
        "published checkpoints"
    )


def _classifiers(network: nn.Module) -> list[str]:
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return [f"{name}." for name in ([names] if isinstance(names, str) else names)]


def _filled(found: _Found, network: nn.Module, values: Mapping[str, Tensor], source: str) -> tuple[nn.Module, int]:
    """The network at the image size that its weights were made for, with exactly `values`, and that size."""
    own = network.state_dict()
    for name, value in values.items():
        if value.is_floating_point() != own[name].is_floating_point() or value.is_complex():
            raise WeightsError(f"{source}: the value of {name} is {value.dtype}, where {own[name].dtype} is needed")
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise WeightsError(f"{source}: the value of {name} is not finite (NaN or infinity); the weights are broken")
    exact = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
    image_px = found.sizes[0]
    for other in found.sizes[1:]:
        if any(own[name].shape != value.shape for name, value in exact.items()):
            resized = _build(found, other)
            if all(resized.state_dict()[name].shape == value.shape for name, value in exact.items()):
                network, image_px = resized, other
    check_keys(network, exact, source)
    network.load_state_dict(exact, strict=True)
    return network, image_px


def _fit(network: nn.Module, found: _Found, image_px: int, window: int | None) -> tuple[dict[str, Any], str]:
    """Adapt a network of `image_px` to the size and window that are wanted; its arguments, and what was done."""
    if found.window is None:
        if image_px == found.image_px:
            return found.args, ""
        set_image_px(network, found.image_px)
        return found.args, f"from {image_px} px to {found.image_px} px"
    wanted = window or max(1, found.window * found.image_px // image_px)  # the ratio that set_image_px keeps
    if (image_px, found.window) == (found.image_px, wanted):
        return found.args, ""
    set_image_px(network, found.image_px, window=wanted)
    was, now = f"window {found.window} at {image_px} px", f"window {wanted} at {found.image_px} px"
    return found.args | {"window_size": wanted}, f"from {was} to {now}"
