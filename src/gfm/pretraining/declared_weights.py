"""Whether published weights are what the parameters declare: by their digest, and by what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gfm.errors import WeightsError
from gfm.models.encoder import check_keys
from gfm.models.weights_hash import sha256_of
from gfm.params import TimmEncoder

CONFIG = "config.json"  # of the hub's folders, beside model.safetensors
UNSEEN = ("pad_type", "act_layer")  # arguments of a network that no tensor shows
STATISTICS = (".running_mean", ".running_var")  # of batch norm
_TOLERANCE = 1e-3  # of a mean or standard deviation: publishers round


def check_digest(path: Path, sha256: str, key: str, field: str) -> str:
    """The file's SHA-256; WeightsError where it is not the declared one. `key.field` names the file in parameters."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{key}.{field} = {path}: {error.strerror}; give the path of a weights file") from None
    if digest != sha256.lower():
        raise WeightsError(
            f"{path}: its sha256 is {digest}, but {key}.sha256 = {sha256}; get the right file, or correct it"
        )
    return digest


def check_input(wanted: TimmEncoder, home: Path, key: str) -> str:
    """Compare the declared normalisation and arguments with what the weights were trained with, where that is known.

    A file's own metadata and a config.json beside it are believed, and timm for weights of the hub: WeightsError where
    the declaration differs. Returns a remark where a file says nothing and the normalisation is not that which timm
    knows for the architecture. `home` is the parameter file's folder.
    """
    if wanted.weights == "hub":
        known = _of_timm(wanted.architecture.name)
        _compare(wanted, known, key, f"timm's weights of {wanted.architecture.name}")
        return ""
    path = home / wanted.weights
    stated = _stated(path)
    _compare(wanted, stated, key, str(path))
    usual = _of_timm(wanted.architecture.name)
    differs = [name for name in ("mean", "std") if name not in stated and _differs(wanted, usual, name)]
    if not differs:
        return ""
    return (
        f"{key}.normalisation is not timm's for {wanted.architecture.name} ({_shown(usual)}), and {path.name} does not "
        "say which it was trained with: a wrong one gives poor features without an error"
    )


def check_batch_norm(wanted: TimmEncoder, state: Mapping[str, Tensor], key: str, source: str) -> None:
    """WeightsError for statistics folded into the convolutions that `live` would learn anew in fine-tuning."""
    means, variances = ([value for name, value in state.items() if name.endswith(end)] for end in STATISTICS)
    folded = means and all((m == 0).all() for m in means) and all((v == 1).all() for v in variances)
    if folded and wanted.batch_norm != "frozen":
        raise WeightsError(
            f"{key}.batch_norm = {wanted.batch_norm}: all batch norm means of {source} are 0 and all variances 1, so "
            "they are folded into its convolutions and must not be learned anew; give batch_norm: frozen"
        )


def outlined_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as meta tensors, except the statistics of batch norm, which are read."""
    try:
        with safe_open(path, "pt") as file:
            return {
                name: file.get_tensor(name)
                if name.endswith(STATISTICS)
                else torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118  (it is no mapping)
            }
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from None


def fitting_weights(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """What of a file's tensors is the network's: all but its classifier's, by timm's name for that.

    WeightsError for any other key or shape that is missing, unknown or different.
    """
    names = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    classifier = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    kept = {key: value for key, value in state.items() if not (classifier and key.startswith(classifier))}
    check_keys(backbone, kept, source)
    return kept


def _stated(path: Path) -> dict[str, object]:
    """What a file says it was trained with: `mean`, `std`, and arguments that no tensor shows."""
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from None
    own = {name: _numbers(metadata[name]) for name in ("mean", "std") if name in metadata}
    return _beside(path.with_name(CONFIG)) | _sensible(own, metadata)


def _beside(path: Path) -> dict[str, object]:
    """The same from the hub's config.json; one that is no description of a timm model says nothing."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__}); restore or remove it") from None
    if not isinstance(config, dict):
        return {}
    own, args = config.get("pretrained_cfg"), config.get("model_args")
    return _sensible(own if isinstance(own, dict) else {}, args if isinstance(args, dict) else {})


def _sensible(normalisation: Mapping[str, object], args: Mapping[str, object]) -> dict[str, object]:
    """What can be a declaration: lists of numbers in [0, 1] and plain texts. Anything else says nothing."""
    said: dict[str, object] = {}
    for name in ("mean", "std"):
        numbers = normalisation.get(name)
        if isinstance(numbers, list) and numbers and all(_is_share(number) for number in numbers):
            said[name] = numbers
    return said | {name: args[name] for name in UNSEEN if isinstance(args.get(name), str)}


def _is_share(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1


def _of_timm(architecture: str) -> dict[str, object]:
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    return {} if config is None else {"mean": list(config.mean), "std": list(config.std)}


def _numbers(text: str) -> list[float]:
    """`0.5,0.5,0.5` or `[0.5, 0.5, 0.5]`; nothing where it is none of these."""
    try:
        return [float(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",")]
    except ValueError:
        return []


def _compare(wanted: TimmEncoder, said: Mapping[str, object], key: str, source: str) -> None:
    wrong = [name for name in ("mean", "std") if name in said and _differs(wanted, said, name)]
    if wrong:
        raise WeightsError(
            f"{key}.normalisation.{wrong[0]} = {getattr(wanted.normalisation, wrong[0])}: {source} was trained with "
            f"{_shown(said)}; give {key}.normalisation: {{{_shown(said)}}}"
        )
    for name in UNSEEN:
        given = wanted.architecture.args.get(name)
        if name in said and given != said[name]:
            has = "nothing" if given is None else f"{given!r}"
            raise WeightsError(
                f"{key}.architecture.args has {has} for {name}: {source} was trained with {said[name]!r}; "
                f"give {key}.architecture.args: {{{name}: {said[name]}}}"
            )


def _differs(wanted: TimmEncoder, said: Mapping[str, object], name: str) -> bool:
    theirs, ours = said.get(name), getattr(wanted.normalisation, name)
    if not isinstance(theirs, Sequence) or len(theirs) != len(ours):
        return False  # of other bands: nothing to compare
    return any(abs(one - other) > _TOLERANCE for one, other in zip(theirs, ours, strict=True))


def _shown(said: Mapping[str, object]) -> str:
    return ", ".join(f"{name}: {said[name]}" for name in ("mean", "std") if name in said)
