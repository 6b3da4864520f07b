"""A workspace: a folder that runs the same stages with another parameter file, apart from the repository's state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from gfm.errors import GfmError
from gfm.layout import EXPECTATIONS
from gfm.params import PARAMS_FILE, Paths, load, rebase
from gfm.progress import say

STAGES_FILE = Path("dvc.yaml")
MARK = Path(".dvc/config")  # what tells a workspace from somebody's folder, together with its parameter file
TRACKED = ("seed", "device", "splits", "validation", "student", "evaluate", "models")  # sections of dvc.yaml's params
HEADER = "# Made by `gfm workspace {config} {folder}`; run it again after editing {config}.\n"


class WorkspaceError(GfmError):
    """A workspace that cannot be made; names the folder or file and the fix."""


def make_workspace(config: Path, folder: Path) -> None:
    """Make or refresh a workspace from a whole parameter file.

    It gets params.yaml (paths rewritten to mean the same files), copies of dvc.yaml and expectations/ and a DVC
    repository of its own. Made again, only these change: collection, models, reports and dvc.lock stay, so that
    `dvc repro` runs what the new parameters make stale.

    Raises ParameterError for a wrong parameter file, WorkspaceError for a folder that holds something else, or where
    no dvc.yaml is found.
    """
    params = load(config)
    home = _home(config)
    _claim(folder)
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    # dvc.yaml takes these from the file, not from the schema's defaults.
    raw.setdefault("paths", {}).setdefault("raw", str(Paths().raw))
    for key, value in params.model_dump(mode="json", include=set(TRACKED)).items():
        raw.setdefault(key, value)
    raw["splits"].setdefault("block_km", params.splits.block_km)
    raw["geopile"].setdefault("bands", params.geopile.bands)
    moved = rebase(raw, config.parent, folder)
    header = HEADER.format(config=config.as_posix(), folder=folder.as_posix())
    text = header + yaml.dump(moved, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    _write(folder / PARAMS_FILE, text)
    load(folder / PARAMS_FILE)
    _write(folder / STAGES_FILE, (home / STAGES_FILE).read_text(encoding="utf-8"))
    _copy_folder(home / EXPECTATIONS, folder / EXPECTATIONS)
    if not (folder / MARK).exists():
        _init_dvc(folder)
    say(f"{folder}: workspace of {config}; next: cd {folder} && dvc repro")


def _home(config: Path) -> Path:
    """The folder with dvc.yaml: the current one, else the nearest above the parameter file."""
    for folder in (Path(), *config.resolve().parents):
        if (folder / STAGES_FILE).exists() and (folder / EXPECTATIONS).is_dir():
            return folder
    raise WorkspaceError(f"no {STAGES_FILE} with {EXPECTATIONS}/ here or above {config}; run in the gfm repository")


def _claim(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder}: is a file; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ".git").exists():
        raise WorkspaceError(f"{folder}: is a git repository, not a workspace; give another folder")
    started = folder / PARAMS_FILE
    known = started.exists() and started.read_text(encoding="utf-8").startswith(HEADER.split("{")[0])
    if any(folder.iterdir()) and not known:
        raise WorkspaceError(f"{folder}: is not empty and not a workspace; give a new or empty folder")


def _init_dvc(folder: Path) -> None:
    """A DVC repository without git: the folder is ignored by the repository that it may lie in."""
    _dvc(folder, "init", "--no-scm", "--quiet", "--force")
    _dvc(folder, "config", "core.analytics", "false")
    _dvc(folder, "config", "core.autostage", "false")


def _dvc(folder: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DVC_NO_ANALYTICS": "true"},
        )
    except OSError as error:
        raise WorkspaceError(f"{folder}: dvc cannot be started: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise WorkspaceError(f"{folder}: dvc {arguments[0]} failed: {lines[-1]}; install dvc or mend the folder")


def _copy_folder(source: Path, target: Path) -> None:
    """Replace a folder by a copy, by way of a sibling so that a kill leaves no half of it."""
    fresh = target.with_name(f".{target.name}.new")
    old = target.with_name(f".{target.name}.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Write atomically, and not at all where nothing changed: file times stay true."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values out: a reader should not have to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True
