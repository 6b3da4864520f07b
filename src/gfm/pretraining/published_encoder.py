"""`gfm encoder NAME`: weights that the parameters declare, made into an encoder that `models` can name."""

from __future__ import annotations

import re
from pathlib import Path

from gfm.errors import GfmError
from gfm.params import CheckpointEncoder, ParameterError, Params, RegisteredEncoder, TimmEncoder
from gfm.pretraining.declared_weights import check_digest
from gfm.pretraining.import_encoder import Input, import_encoder
from gfm.pretraining.registered_encoder import take_registered
from gfm.pretraining.timm_encoder import import_timm

OPTIONS = {  # of `gfm import`, which its errors name: what they are called in the parameters
    "--architecture": "architecture",
    "--family": "family",
    "--window": "window",
    "--key": "entry",
    "--prefix": "prefix",
    "--bands": "bands",
    "--mean": "normalisation.mean",
    "--std": "normalisation.std",
    "--wavelengths": "wavelengths_um",
    "--gsd": "gsd_m",
}


def make_encoder(params: Params, name: str) -> None:
    """Write models/encoders/NAME as `encoders.NAME` says; WeightsError where the weights are not what it declares."""
    if name not in params.encoders:
        raise ParameterError(f"encoders has no {name}; it has {', '.join(params.encoders) or 'none'}")
    wanted, key = params.encoders[name], f"encoders.{name}"
    match wanted:
        case TimmEncoder():
            import_timm(params, name, wanted, key=key, role="encoder")
        case CheckpointEncoder():
            _import_checkpoint(name, wanted, key)
        case RegisteredEncoder():
            take_registered(params, name, wanted, key=key)


def _import_checkpoint(name: str, wanted: CheckpointEncoder, key: str) -> None:
    path = Path(wanted.file)
    check_digest(path, wanted.sha256, key, "file")
    norm = wanted.normalisation
    seen = Input(
        bands=wanted.bands,
        mean=None if norm is None else norm.mean,
        std=None if norm is None else norm.std,
        wavelengths_um=wanted.wavelengths_um,
        gsd_m=wanted.gsd_m,
    )
    try:
        import_encoder(
            path,
            name,
            architecture=wanted.architecture,
            image_px=wanted.image_px,
            window=wanted.window,
            key=wanted.entry,
            prefix=wanted.prefix,
            family=wanted.family,
            seen=seen,
            licence=wanted.licence,
            report=None,
            force=True,
        )
    except GfmError as error:
        told = re.sub(r"--[a-z-]+", lambda option: f"{key}.{OPTIONS.get(option[0], option[0])}", str(error))
        raise type(error)(told) from None
