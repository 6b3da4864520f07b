"""`gfm import`: a published checkpoint as an encoder of this project, with a report of every key of it."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Sized
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from gfm import layout
from gfm.errors import GfmError, WeightsError
from gfm.models.checkpoint_file import Checkpoint, read_checkpoint
from gfm.models.checkpoint_import import ImportedNetwork, KeyFate, Request, import_network
from gfm.models.encoder import load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.families import FAMILIES, check_release
from gfm.models.weights_hash import sha256_of
from gfm.output_folder import new_folder
from gfm.params import Geopile, Name, Normalisation
from gfm.pretraining.model_card import write_model_card
from gfm.pretraining.record import RunRecord
from gfm.progress import say
from gfm.tracking.provenance import provenance

REPORT = "import.csv"
RESERVED = {"random": "`gfm untrained`", "teacher": "`gfm teacher`"}
METHOD = "A published checkpoint, taken over as it is; what was not part of its encoder was left out."


@dataclass(frozen=True, slots=True)
class Input:
    """The network's input as the user states it; None: three bands, normalised as natural images are."""

    bands: list[str] | None
    mean: list[float] | None  # of each band, values in [0, 1]
    std: list[float] | None
    wavelengths_um: list[float] | None
    gsd_m: float | None = None  # metres of ground a pixel, for families that read it


def import_encoder(
    path: Path,
    name: str,
    *,
    architecture: str | None,
    image_px: int | None,
    window: int | None,
    key: str | None,
    prefix: str | None,
    family: str | None,
    seen: Input,
    licence: str,
    report: Path | None,
    force: bool,
) -> None:
    """Write models/encoders/NAME from the checkpoint at `path`, and what became of each of its keys.

    Nothing is written where anything of the checkpoint is not understood; an encoder that exists is replaced with
    `force` alone. WeightsError says what is wrong with the checkpoint, GfmError what is wrong with the options.
    """
    final = _free_folder(name, force)
    if not licence.strip():
        raise GfmError("--licence: state the terms of the weights, as their publisher does")
    if family is not None and family not in FAMILIES:
        raise GfmError(f"--family {family}: not known; known are {', '.join(FAMILIES)}")
    checkpoint = read_checkpoint(path, key)
    digest = sha256_of(path)
    check_release(family, digest, str(path))
    bands = None if seen.bands is None else len(seen.bands)
    request = Request(architecture, image_px, window, bands, prefix, family, seen.wavelengths_um, seen.gsd_m)
    network = import_network(checkpoint, request)
    known = _input(seen, network, path)
    weights = {
        "weights": path.name,
        "weights_sha256": digest,
        **({} if family is None else {"weights_family": family}),
        "weights_entry": checkpoint.entry,
        "weights_prefix": network.prefix,
        "weights_resized": network.resizing,
    }
    card = EncoderCard(
        architecture=network.architecture,
        model_args=network.model_args,
        image_px=network.image_px,
        bands=known.bands or [],
        mean=known.mean or [],
        std=known.std or [],
        batch_norm="live",
        origin="imported",
        licence=licence,
        wavelengths_um=list(known.wavelengths_um or []),
        parents=[path.name],
        provenance=weights,  # not when and where it was taken over: taken over again it is the same encoder
        energy={"kwh": None, "kg_co2eq": None, "method": "not measured: trained elsewhere"},
    )
    with new_folder(final) as folder:
        save_encoder(folder, network.backbone, card)
        _check_written(folder, network)
        write_report(folder / REPORT, network.report)
        _describe(folder, name, card, network)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(final / REPORT, report)
    _say(final, card, checkpoint, network)


def write_report(path: Path, fates: list[KeyFate]) -> None:
    """One CSV row a key of the checkpoint, in its order; shapes as 128x3x4x4."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(KeyFate)])
        for fate in fates:
            writer.writerow([_shown(value) for value in astuple(fate)])


def _shown(value: object) -> object:
    return "x".join(map(str, value)) or "scalar" if isinstance(value, tuple) else value


def _free_folder(name: str, force: bool) -> Path:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise GfmError(f"{name!r} cannot name an encoder: use letters, digits, - and _") from None
    if name in RESERVED:
        raise GfmError(f"{name}: this encoder is made by {RESERVED[name]}; give another name")
    final = layout.encoder_folder(name)
    if final.exists() and not force:
        raise GfmError(f"{final}: exists already; give another name, or replace it with --force")
    return final


def _input(seen: Input, network: ImportedNetwork, path: Path) -> Input:
    """Bands and statistics, one a channel of the network."""
    usual: list[str] = Geopile.model_fields["bands"].get_default()
    bands = seen.bands or (usual if network.bands == len(usual) else None)
    if bands is None:
        raise GfmError(f"{path}: the network takes {network.bands} bands; name them in order with --bands")
    natural = Normalisation() if bands == usual else None
    mean = seen.mean or (natural.mean if natural else None)
    std = seen.std or (natural.std if natural else None)
    if mean is None or std is None:
        raise GfmError(f"--bands {','.join(bands)}: give their --mean and --std too, of values in [0, 1]")
    lists: dict[str, Sized | None] = {
        "--bands": bands,
        "--mean": mean,
        "--std": std,
        "--wavelengths": seen.wavelengths_um,
    }
    for option, values in lists.items():
        if values is not None and len(values) != network.bands:
            raise GfmError(
                f"{option} gives {len(values)} values, but the network of {path} takes {network.bands} bands"
            )
    if len(set(bands)) < len(bands) or "" in bands:
        raise GfmError(f"--bands {','.join(bands)}: names a band twice, or one without a name")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise GfmError(f"--mean {mean}, --std {std}: of values in [0, 1]; divide what holds for 8-bit values by 255")
    if seen.wavelengths_um is not None and not all(value > 0 for value in seen.wavelengths_um):
        raise GfmError("--wavelengths: give them in micrometres, above 0")
    if seen.gsd_m is not None and seen.gsd_m <= 0:
        raise GfmError(f"--gsd {seen.gsd_m:g}: give the metres of ground a pixel, above 0")
    return Input(list(bands), list(mean), list(std), seen.wavelengths_um)


def _check_written(folder: Path, network: ImportedNetwork) -> None:
    """Never silently another network: what is read back is what was imported."""
    written = load_encoder(folder, image_px=network.image_px, seed=0).backbone.state_dict()
    own = network.backbone.state_dict()
    wrong = [key for key, value in own.items() if key not in written or not torch.equal(written[key], value)]
    if wrong or len(written) != len(own):
        raise WeightsError(f"{folder}: {len(wrong)} tensors read back differ, {', '.join(wrong[:1])} first")


def _describe(folder: Path, name: str, card: EncoderCard, network: ImportedNetwork) -> None:
    record = RunRecord(
        name=name,
        kind="imported encoder",
        seed=None,
        seconds=0.0,
        samples=0,
        provenance=provenance(None) | {"data": {}} | card.provenance,
        energy=card.energy,
        run_id=None,
        metrics={},
    )
    record.write(folder)
    limits = ["Made by others: their terms, their data and their biases apply.", *network.notes]
    if network.resizing:
        limits.append(f"Its position tables were resized {network.resizing}: fine-tune it before judging it.")
    parameters = sum(parameter.numel() for parameter in network.backbone.parameters())
    write_model_card(folder, card, record, method=METHOD, parameters=parameters, sources={}, limits=limits)


def _say(final: Path, card: EncoderCard, checkpoint: Checkpoint, network: ImportedNetwork) -> None:
    counts = Counter(fate.fate for fate in network.report)
    say(
        f"{final}: {card.architecture} with {card.model_args or 'its own arguments'}, {card.image_px} px, "
        f"bands {', '.join(card.bands)}"
    )
    say(
        f"{checkpoint.path}: {counts['mapped']} keys mapped, {counts['resized']} resized, "
        + (f"{counts['converted']} converted, " if counts["converted"] else "")
        + f"{counts['left']} left (every key: {final / REPORT})"
    )
    if network.size_from:
        say(f"weights made for images of {network.weights_px} px: {network.size_from}")
    if network.resizing:
        say(f"resized {network.resizing}")
    for note in network.notes:
        say(f"note: {note}")
    reasons: dict[str, list[str]] = {}
    for fate in network.report:
        if fate.fate == "left":
            reasons.setdefault(fate.reason, []).append(fate.key)
    for reason, keys in reasons.items():
        more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
        say(f"left, {reason}: {', '.join(keys[:2])}{more}")
