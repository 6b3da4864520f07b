"""A published timm model as an encoder here, with its pretrained weights and never without them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from gfm import layout
from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone, set_image_px, takes_img_size
from gfm.models.encoder import check_keys, read_weights
from gfm.models.encoder_file import EncoderCard
from gfm.output_folder import new_folder
from gfm.params import Params, TimmEncoder
from gfm.pretraining.declared_weights import check_batch_norm, check_digest, check_input, fitting_weights
from gfm.pretraining.finished import write_finished
from gfm.pretraining.record import RunRecord
from gfm.progress import say
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import provenance
from gfm.tracking.runs import child_run

METHOD = "A published timm model, taken over as it is; its classifier is not kept."


@dataclass(frozen=True, slots=True)
class Imported:
    """A headless network with the weights it was asked for."""

    backbone: nn.Module
    dropped: list[str]  # keys of the classifier, left out
    source: str  # file name, or the hub's name
    digest: str | None  # sha256 of the file


def import_timm(
    params: Params, name: str, wanted: TimmEncoder, *, key: str, role: Literal["teacher", "encoder"]
) -> None:
    """Write models/encoders/NAME from `wanted.weights`; WeightsError where they cannot be had or do not fit.

    `key` is where `wanted` stands in the parameters, for errors; `role` is what it is recorded as.
    """
    final = layout.encoder_folder(name)
    settings = wanted.model_dump(mode="json")
    with (
        new_folder(final) as folder,
        child_run(params, name=name, kind=role, settings=settings) as tracked,
        measure(params.carbon, name) as meter,
    ):
        bands = len(params.geopile.bands)
        found = from_hub(wanted, bands, key) if wanted.weights == "hub" else from_file(wanted, bands, key)
        remark = check_input(wanted, Path(), key)
        if remark:
            say(f"note: {remark}")
        weights = {"weights": found.source, "weights_sha256": found.digest}
        card = EncoderCard(
            architecture=wanted.architecture.name,
            model_args=dict(wanted.architecture.args),
            image_px=wanted.architecture.image_px,
            bands=list(params.geopile.bands),
            mean=list(wanted.normalisation.mean),
            std=list(wanted.normalisation.std),
            batch_norm=wanted.batch_norm,
            origin="imported",
            licence=wanted.licence,
            parents=[found.source],
            provenance=weights,  # not when and where it was taken over: taken over again it is the same encoder
            energy={"kwh": None, "kg_co2eq": None, "method": "not measured: trained elsewhere"},
        )
        record = RunRecord(
            name=name,
            kind=f"imported {role}",
            seed=None,
            seconds=0.0,
            samples=0,
            provenance=provenance(None) | {"data": {}} | weights,
            energy=card.energy,
            run_id=tracked.run_id,
            metrics={},
        )
        write_finished(
            folder,
            found.backbone,
            card,
            record,
            method=METHOD,
            sources={},
            limits=["Made from natural images by others: their terms and their biases apply."],
        )
    tracked.energy(meter.energy)
    dropped = f"; left out the classifier ({', '.join(found.dropped)})" if found.dropped else ""
    say(f"{final}: {card.architecture} with the weights of {found.source}{dropped}")


def from_file(wanted: TimmEncoder, bands: int, key: str) -> Imported:
    """The network with exactly the tensors of a local safetensors file; half precision becomes float32.

    Only the classifier's keys, by timm's name for it, are left out. WeightsError for another sha256, and for any
    other key or shape that is missing, unknown or different.
    """
    path = Path(wanted.weights)
    digest = check_digest(path, str(wanted.sha256), key, "weights")
    state = read_weights(path)
    check_batch_norm(wanted, state, key, str(path))
    backbone = _backbone(wanted, bands)
    kept = fitting_weights(backbone, state, str(path))
    backbone.load_state_dict(kept, strict=True)
    _check_loaded(backbone, kept, str(path))
    return Imported(backbone, [key for key in state if key not in kept], path.name, digest)


def from_hub(wanted: TimmEncoder, bands: int, key: str) -> Imported:
    """The network with the weights that timm knows for it; WeightsError where they cannot be fetched."""
    name = wanted.architecture.name
    given = {**wanted.architecture.args, "in_chans": bands, "num_classes": 0}

    def fetch(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(name, pretrained=True, **given)  # type: ignore[no-any-return]

    try:
        pretrained, again = fetch(0), fetch(1)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{key}.weights = hub: the weights of {name} cannot be had here ({type(error).__name__}: {reason}); "
            f"fetch them elsewhere and give {key}.weights = a local safetensors file"
        ) from None
    # timm loads headless networks without checking keys: whatever still depends on the seed had no weights.
    other = again.state_dict()
    left = [key for key, value in pretrained.state_dict().items() if not torch.equal(value, other[key])]
    if left:
        raise WeightsError(
            f"{key}.weights = hub: timm's weights of {name} have no {left[0]} (and {len(left) - 1} more keys that "
            f"{key}.architecture.args ask for); drop those args"
        )
    if takes_img_size(name):
        set_image_px(pretrained, wanted.architecture.image_px)
    state: dict[str, Tensor] = pretrained.state_dict()
    backbone = _backbone(wanted, bands)
    check_keys(backbone, state, f"timm's weights of {name}")
    backbone.load_state_dict(state, strict=True)
    return Imported(backbone, [], f"timm {name}", None)


def _backbone(wanted: TimmEncoder, bands: int) -> nn.Module:
    network = wanted.architecture
    return build_backbone(network.name, network.args, image_px=network.image_px, bands=bands, seed=0)


def _check_loaded(backbone: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Never silently random: what the network holds now is what the file holds."""
    own = backbone.state_dict()
    different = [key for key, value in state.items() if not torch.equal(own[key], value)]
    if different:
        raise WeightsError(f"{source}: {len(different)} tensors did not arrive, {different[0]} first")
