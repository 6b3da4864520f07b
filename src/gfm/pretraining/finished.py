"""A finished encoder: its weights, what made it, and the card that explains it, written in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from gfm.models.encoder import save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.pretraining.history import History
from gfm.pretraining.model_card import NO_PICTURES, write_model_card
from gfm.pretraining.record import RunRecord


def write_finished(
    folder: Path,
    backbone: nn.Module,
    card: EncoderCard,
    record: RunRecord,
    *,
    method: str,
    sources: Mapping[str, tuple[str, int]],
    limits: Sequence[str],
    history: History | None = None,
    pictures: Mapping[str, str] = NO_PICTURES,
) -> None:
    """Write config.json, model.safetensors, run.json, history.csv and README.md into `folder`.

    `sources` maps each data source to its licence and its number of images, `pictures` the files that lie in the folder
    to their captions.
    """
    save_encoder(folder, backbone, card)
    if history is not None:
        history.write(folder / "history.csv")
    record.write(folder)
    write_model_card(
        folder,
        card,
        record,
        method=method,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        sources=sources,
        limits=limits,
        pictures=pictures,
    )
