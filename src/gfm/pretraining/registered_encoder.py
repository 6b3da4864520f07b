"""A version of the project's own registered model as an encoder, with the origin and the energy of its making."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gfm import layout
from gfm.errors import WeightsError
from gfm.models.backbone import takes_img_size
from gfm.models.encoder import load_encoder
from gfm.models.encoder_file import CONFIG, WEIGHTS, read_card, write_card
from gfm.output_folder import new_folder
from gfm.params import Params, RegisteredEncoder
from gfm.pretraining.record import RunRecord
from gfm.progress import say
from gfm.tracking.versions import open_registry

MODEL_CARD = "README.md"


def take_registered(params: Params, name: str, wanted: RegisteredEncoder, *, key: str) -> None:
    """Write models/encoders/NAME from the registry; TrackingError where it has no such version, or not its files.

    Its run.json names the run that made the version, so that fine-tunings of it count as the version's.
    """
    registry = open_registry(params, wanted.model)
    version = registry.numbered(wanted.version)
    told = f"{registry.name} version {version.number}"
    final = layout.encoder_folder(name)
    with new_folder(final) as folder, TemporaryDirectory() as scratch:
        fetched = registry.fetch(version, Path(scratch))
        for file in (CONFIG, WEIGHTS):
            if not (fetched / file).is_file():
                raise WeightsError(
                    f"{key}: {told} has no {file}; restore the artifacts of its run, or take another version"
                )
            shutil.copyfile(fetched / file, folder / file)
        if (fetched / MODEL_CARD).exists():
            text = re.sub(r'"local-dir:[^"]+"', f'"local-dir:{final}"', (fetched / MODEL_CARD).read_text("utf-8"))
            (folder / MODEL_CARD).write_text(text, encoding="utf-8")
        card = read_card(folder)
        load_encoder(folder, image_px=card.image_px, seed=0)  # whole, and of the card's architecture
        alias = "" if isinstance(wanted.version, int) else f", then its {wanted.version}"
        card = replace(card, provenance=card.provenance | {"registered_as": told + alias})
        write_card(folder, card, fixed_px=takes_img_size(card.architecture))
        RunRecord(
            name=name,
            kind="registered encoder",
            seed=card.provenance.get("seed"),
            seconds=float(card.energy.get("seconds") or 0.0),
            samples=0,
            provenance=card.provenance,
            energy=card.energy,
            run_id=version.run_id,
            metrics={},
        ).write(folder)
    say(f"{final}: {card.architecture}, {told}{alias} ({key})")
