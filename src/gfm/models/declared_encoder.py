"""The encoder that parameters declare, built for its shape alone: to see that it can be, and what it has."""

from __future__ import annotations

from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.params import Architecture, Normalisation, ParameterError, Params, TimmEncoder


def declared_encoder(key: str, wanted: Architecture, norm: Normalisation, bands: list[str]) -> Encoder:
    """The network of `key` without weights; ParameterError where timm refuses it.

    On the meta device (`with torch.device("meta")`) it takes no memory.
    """
    try:
        backbone = build_backbone(wanted.name, wanted.args, image_px=wanted.image_px, bands=len(bands), seed=0)
        card = EncoderCard(
            wanted.name, wanted.args, wanted.image_px, bands, norm.mean, norm.std, "live", "random", licence=""
        )
        return Encoder(backbone, card, key)
    except WeightsError as error:
        raise ParameterError(f"{key}.architecture: {error}") from None


def declared_key(params: Params, model: str) -> str | None:
    """Where the parameters declare the network of a model; None where only its own file says what it is."""
    if model == "teacher":
        return "teacher"
    if model not in params.encoders:
        return "student"
    return f"encoders.{model}" if isinstance(params.encoders[model], TimmEncoder) else None
