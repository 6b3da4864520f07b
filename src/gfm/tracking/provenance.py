"""Where a number comes from: code, versions, machine and the hashes of the data that it was made with."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import yaml
from pydantic import JsonValue

from gfm import layout
from gfm.errors import DataError

PACKAGE = Path(__file__).resolve().parents[1]
LOCK_FILE = Path("dvc.lock")
LIBRARIES = ("torch", "timm", "lightning")
COMMIT_VARIABLE = "GFM_COMMIT"  # for images that hold the code without its repository: set when the image is built


def provenance(seed: int | None) -> dict[str, JsonValue]:
    """Describe what a result made now, in this working folder, depends on.

    What cannot be known is null: the commit of code outside a git repository, a library that is not installed, the
    hash of a collection that does not exist yet. Raises DataError where dvc.lock is not readable as DVC writes it.
    """
    commit, dirty = code_version()
    return {
        "gfm": _version("gfm"),
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "python": platform.python_version(),
        **{library: _version(library) for library in LIBRARIES},
        "hardware": hardware(),
        "data": dict(data_version()),
    }


def code_version() -> tuple[str | None, bool | None]:
    """The commit of the gfm source and whether it was edited since; (None, None) where no repository holds it."""
    # A package in a virtual environment inside somebody's repository is not part of that repository.
    if _git("ls-files", "--error-unmatch", "errors.py") is None:
        return os.environ.get(COMMIT_VARIABLE) or None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    changes = _git("status", "--porcelain", "--", ".")
    return commit, None if changes is None else bool(changes)


def source_digest() -> str:
    """Of the gfm source that runs, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def hardware() -> dict[str, JsonValue]:
    """CPU model, usable cores and GPU models, read without starting a GPU context."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu_model(), "cores": usable, "gpu": list(_gpus())}


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def data_version(manifest: Path = layout.MANIFEST) -> dict[str, str | None]:
    """Hashes of the collection: DVC's, from dvc.lock, and xxh3 of the manifest and of the split."""
    return {
        "dvc": dvc_hash(layout.COLLECTION),
        "manifest": content_hash(manifest),
        "splits": content_hash(layout.COLLECTION_SPLIT),
    }


def dvc_hash(output: Path) -> str | None:
    """DVC's hash of a stage output as dvc.lock records it, or None where it records none.

    Raises DataError when dvc.lock is not YAML of DVC's making.
    """
    if not LOCK_FILE.exists():
        return None
    try:
        stages = (yaml.safe_load(LOCK_FILE.read_text(encoding="utf-8")) or {}).get("stages") or {}
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        return next((str(out["md5"]) for out in outs if out["path"] == output.as_posix()), None)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{LOCK_FILE}: cannot be read ({type(error).__name__}); restore it or run dvc repro") from error


def run_of(folder: Path) -> str | None:
    """The MLflow run that made what lies in a folder, by its run.json; None where none is recorded."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    found = record.get("run_id") if isinstance(record, dict) else None
    return str(found) if found else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Names of NVIDIA GPUs from the driver's own files; a torch query would take memory on each of them."""
    names = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                names.append(value.strip())
    return names


def content_hash(path: Path) -> str | None:
    """xxh3 of a file's bytes; None where there is no file."""
    import xxhash

    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
