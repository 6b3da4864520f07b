"""The model registry: an encoder becomes a version with its weights, card and origin; never a pickle."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gfm import layout
from gfm.errors import WeightsError
from gfm.params import Params, SupervisedTeacher
from gfm.progress import say
from gfm.tracking.provenance import run_of
from gfm.tracking.runs import RecordedRun, Run
from gfm.tracking.store import working_folder_lock

CODE = Path(__file__).with_name("registered_model.py")
ALIAS = "challenger"  # a new version challenges; `gfm promote` makes it the champion
NO_PARENTS = "none"  # it began with random weights and followed nobody
LONGEST_DESCRIPTION = 4900  # MLflow's column holds 5,000 characters
REQUIREMENTS = ("mlflow", "numpy", "safetensors", "timm", "torch")


def register_encoder(params: Params, run: Run, folder: Path) -> str | None:
    """Register a finished encoder folder as a new version of tracking.registered_model, under the alias `challenger`.

    Returns the version; None where the run is not recorded, or where the store fails half-way, which is said aloud:
    the encoder on disk is complete either way. Raises WeightsError for a folder without weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not (folder / "model.safetensors").exists():
        raise WeightsError(f"{folder}: has no model.safetensors; an untrained encoder is not registered")
    if not isinstance(run, RecordedRun):
        return None
    from mlflow.exceptions import MlflowException

    name = params.tracking.registered_model
    try:
        version = _register(params, run, folder, config)
    except (MlflowException, OSError) as error:
        say(f"{folder}: not registered as {name}: {' '.join(str(error).split())[:300]}")
        return None
    say(f"{folder}: registered as {name} version {version}, alias {ALIAS}")
    return version


def version_tags(params: Params, run_id: str, parent: str, folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """What a version's user must know: where it comes from, what it cost, what its licences are."""
    own = config["gfm"]
    origin, energy = own.get("provenance") or {}, own.get("energy") or {}
    data = origin.get("data") or {}
    kg = energy.get("kg_co2eq")
    parents = own.get("parents") or []
    found = {
        "encoder": folder.name,
        "architecture": config["architecture"],
        "origin": own["origin"],
        "bands": ", ".join(own["bands"]),
        "run_id": run_id,
        "pipeline_run_id": parent,
        "git.commit": origin.get("commit"),
        "git.dirty": None if origin.get("dirty") is None else str(bool(origin["dirty"])).lower(),
        "data.dvc": data.get("dvc"),
        "data.manifest": data.get("manifest"),
        "data.splits": data.get("splits"),
        "data.without": data.get("without"),
        "seed": origin.get("seed"),
        "kwh": energy.get("kwh"),
        "kg_co2eq": kg if kg is not None else energy.get("method", "not measured"),
        "energy.method": energy.get("method"),
        "licence": own["licence"],
        "parents": ", ".join(parents) or NO_PARENTS,
        "data.licences": "; ".join(
            sorted({params.geopile.sources[name].licence for name in _sources(params, own, folder)})
        ),
    }
    for name in parents:
        found |= _parent_tags(name)
    return {key: str(value) for key, value in found.items() if value not in (None, "")}


def _parent_tags(name: str) -> dict[str, str | None]:
    """What tells the encoder NAME that a version was made from: the run that made it, and its own origin."""
    folder = layout.encoder_folder(name)
    if not (folder / "config.json").exists():
        return {}  # a file of weights, which its name tells
    own = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("gfm", {})
    return {
        f"parents.{name}.run_id": run_of(folder),
        f"parents.{name}.origin": own.get("origin"),
        f"parents.{name}.made_from": ", ".join(own.get("parents") or []),
    }


def _sources(params: Params, own: dict[str, Any], folder: Path) -> list[str]:
    """The sources whose images the encoder saw: none for an imported one, the labelled ones for a teacher."""
    if own["origin"] == "imported":
        return []
    if own["origin"] == "supervised" and isinstance(params.teacher, SupervisedTeacher):
        return list(params.teacher.sources)
    record = folder / "run.json"
    settings = json.loads(record.read_text(encoding="utf-8")).get("settings") if record.exists() else None
    return list((settings or {}).get("sources") or params.geopile.sources)


def _register(params: Params, run: RecordedRun, folder: Path, config: dict[str, Any]) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    client, run_id, name = run.client, str(run.run_id), params.tracking.registered_model
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        with warnings.catch_warnings():
            # MLflow asks for an input example, which a stated signature makes superfluous.
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.save_model(
                path=str(model),
                python_model=str(CODE),
                artifacts={"encoder": str(folder.resolve())},
                signature=_signature(config),
                pip_requirements=[f"{library}=={metadata.version(library)}" for library in REQUIREMENTS],
            )
        client.log_artifacts(run_id, str(model), "model")
    with working_folder_lock():
        try:
            client.create_registered_model(name, description="Encoders made by gfm; each version carries its card.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        recorded = client.get_run(run_id)
        parent = recorded.data.tags.get("mlflow.parentRunId", "")
        made = client.create_model_version(
            name,
            source=f"{recorded.info.artifact_uri}/model",
            run_id=run_id,
            tags=version_tags(params, run_id, parent, folder, config),
            description=_description(folder),
        )
        client.set_registered_model_alias(name, ALIAS, made.version)
    return str(made.version)


def _signature(config: dict[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    size = config["pretrained_cfg"]["input_size"]
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *size))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
    )


def _description(folder: Path) -> str:
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else f"Encoder {folder.name}; it has no README.md."
    cut = "\n… the whole card is artifacts/encoder/README.md of this version."
    usage = (
        "\n\nInput: float32 images (B, C, H, W), values in [0, 1], normalised inside. "
        "Output: pooled features, float32 (B, D).\n"
    )
    room = LONGEST_DESCRIPTION - len(usage)
    return (text if len(text) <= room else text[: room - len(cut)] + cut) + usage
