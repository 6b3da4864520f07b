"""`gfm export`: an encoder as a folder for others, which timm opens without this project."""

from __future__ import annotations

import shutil
from pathlib import Path

import timm
import torch

from gfm import layout
from gfm.errors import GfmError, WeightsError
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import read_card
from gfm.output_folder import new_folder
from gfm.progress import say

MODEL_CARD = "README.md"


def export_encoder(name: str, folder: Path) -> None:
    """Write models/encoders/NAME to a new `folder`: config.json, model.safetensors, and the model card if there is one.

    The configuration holds bands, normalisation and, where known, wavelengths. The folder is opened with
    `timm.create_model('local-dir:…')` before it gets its name; WeightsError where timm reads other values from it.
    """
    own = layout.encoder_folder(name)
    card = read_card(own)
    if card.origin == "random":
        raise WeightsError(f"{own}: an untrained encoder has no weights to export; take another")
    if folder.exists():
        raise GfmError(f"{folder}: exists already; give a new folder")
    encoder = load_encoder(own, image_px=card.image_px, seed=0)
    with new_folder(folder) as unfinished:
        save_encoder(unfinished, encoder.backbone, card)
        _copy_model_card(own, unfinished, folder)
        opened = timm.create_model(f"local-dir:{unfinished}", pretrained=True).state_dict()
        wrong = [
            k for k, v in encoder.backbone.state_dict().items() if k not in opened or not torch.equal(opened[k], v)
        ]
        if wrong:
            raise WeightsError(
                f"{own}: timm {timm.__version__} reads another {wrong[0]} from it; make the encoder again"
            )
    say(f"{folder}: {card.architecture}, bands {', '.join(card.bands)}, {card.image_px} px, licence: {card.licence}")
    say(f'import timm\nmodel = timm.create_model("local-dir:{folder}", pretrained=True)')


def _copy_model_card(own: Path, unfinished: Path, folder: Path) -> None:
    """The card with its pictures, and with the new place in the line that loads the encoder."""
    if not (own / MODEL_CARD).exists():
        return
    text = (own / MODEL_CARD).read_text(encoding="utf-8")
    text = text.replace(f'"local-dir:{own}"', f'"local-dir:{folder.name}"')
    (unfinished / MODEL_CARD).write_text(text, encoding="utf-8")
    for picture in own.glob("*.png"):
        shutil.copyfile(picture, unfinished / picture.name)
