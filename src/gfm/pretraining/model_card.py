"""The README.md beside an encoder: what it is, what it was made from, what it cost, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from gfm import layout
from gfm.models.encoder_file import EncoderCard
from gfm.pretraining.record import RunRecord
from gfm.tracking.amount import amount, co2eq

LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC BY 4.0": "cc-by-4.0"}  # as the hub's metadata writes them

NO_PICTURES: Mapping[str, str] = MappingProxyType({})
EXPLAINED = {  # numbers that need more than their name
    "mfu": "`mfu`, model FLOPs utilisation: the operations of forward and backward pass that torch counts "
    "(`gflops_per_image`; the frozen teacher's included, recomputed activations not) a second, over `peak_tflops`, the "
    "best large matrix product measured on this device in this precision when training began, times the processes.",
    "probe_knn": "`probe_knn`, `probe_linear`: accuracies on held-out labelled images of nearest neighbours and of a "
    "linear classifier on the pooled last map, `_start` those before the first step.",
}


def write_model_card(
    folder: Path,
    card: EncoderCard,
    record: RunRecord,
    *,
    method: str,
    parameters: int,
    sources: Mapping[str, tuple[str, int]],
    limits: Sequence[str],
    pictures: Mapping[str, str] = NO_PICTURES,
) -> None:
    """Write `README.md`.

    `sources` maps each data source to its licence and its number of images, `pictures` files of the folder to captions.
    """
    licence = LICENCES.get(card.licence, "other")
    bands = "\n".join(
        f"| {band} | {mean:g} | {std:g} |" for band, mean, std in zip(card.bands, card.mean, card.std, strict=True)
    )
    data = "\n".join(f"| {name} | {count} | {licence} |" for name, (licence, count) in sources.items())
    numbers = "\n".join(f"| {name} | {value:g} |" for name, value in record.metrics.items())
    parts = [
        f"---\nlibrary_name: timm\nlicense: {licence}\ntags: [remote-sensing, feature-extraction]\n---",
        f"# {record.name}",
        method,
        "```python\n"
        "import timm\n"
        f'model = timm.create_model("local-dir:{layout.encoder_folder(record.name)}", '
        "pretrained=True, num_classes=0)\n```",
        f"Architecture: timm `{card.architecture}` with {card.model_args or 'its own arguments'}, "
        f"{parameters / 1e6:.2f} million parameters, square images of {card.image_px} px. "
        f"Batch norm: {card.batch_norm}. Origin: {card.origin}. "
        f"Made from: {', '.join(card.parents) or 'random weights'}.",
        f"Licence: {card.licence}",
        "## Input\n\nBands in this order, values in [0, 1], then (value - mean) / std:\n\n"
        f"| band | mean | std |\n|---|---|---|\n{bands}",
    ]
    if sources:
        parts.append(f"## Data\n\n| source | training images | licence |\n|---|---|---|\n{data}")
    if numbers:
        parts.append(f"## Results of training\n\n| number | value |\n|---|---|\n{numbers}")
        parts += [text for name, text in EXPLAINED.items() if name in record.metrics]
    parts += [f"![{caption}]({file})\n\n{caption}" for file, caption in pictures.items()]
    parts += [
        f"## Cost\n\n{_energy(record)}",
        "## Made with\n\n" + "\n".join(_facts(record)),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _energy(record: RunRecord) -> str:
    kwh, kg = record.energy.get("kwh"), record.energy.get("kg_co2eq")
    method = record.energy.get("method", "not measured")
    seen = f"{record.samples} samples in {record.seconds:.0f} s."
    if record.resumed_at_step is not None:
        seen += f" It was resumed at step {record.resumed_at_step}; what a kill lost before that is not counted."
    if kwh is None or kg is None:
        return f"{seen} Energy: {method}."
    return f"{seen} Energy: {amount(kwh)} kWh, {co2eq(kg)} CO2eq ({method}; grid: {record.energy.get('country')})."


def _facts(record: RunRecord) -> list[str]:
    facts = [f"- seed: {record.seed}", f"- MLflow run: {record.run_id or 'not recorded'}"]
    for key, value in record.provenance.items():
        if key == "seed":
            continue
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        facts += [f"- {key} {name}: {item}".replace(" :", ":") for name, item in inner if item not in (None, [], "")]
    return facts
