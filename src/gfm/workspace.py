"""A workspace: a folder that runs the same stages with another parameter file, apart from the repository's state."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gfm.errors import GfmError
from gfm.layout import EXPECTATIONS
from gfm.output_file import write_whole
from gfm.params import PARAMS_FILE, Params, load, rebase
from gfm.progress import say
from gfm.raw_imagery import check_imagery

STAGES_FILE = Path("dvc.yaml")
MARK = Path(".dvc/config")  # what tells a workspace from somebody's folder, together with its parameter file
TEMPLATE = re.compile(r"\$\{([^}]+)\}")  # what dvc.yaml takes from params.yaml by name
HEADER = "# Made by `gfm workspace {config} {folder}`; run it again after editing {config}.\n"
ORIGIN = "# From {path}, sha256 {digest}\n"

ORIGIN_LINE = re.compile(ORIGIN.format(path="(?P<path>.+)", digest="(?P<digest>[0-9a-f]{64})"))


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
    remark = check_imagery(params, config.parent)
    home = _home(config)
    _claim(folder)
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    defaults = params.model_dump(mode="json")
    for key in _lacking(raw, home / STAGES_FILE):
        _fill(raw, key, _value(defaults, key))
    moved = rebase(raw, config.parent, folder)
    header = HEADER.format(config=config.as_posix(), folder=folder.as_posix())
    origin = Path(os.path.relpath(config.resolve(), folder.resolve())).as_posix()
    header += ORIGIN.format(path=origin, digest=_digest(config))
    text = header + yaml.dump(moved, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    _write(folder / PARAMS_FILE, text)
    load(folder / PARAMS_FILE)
    _write(folder / STAGES_FILE, (home / STAGES_FILE).read_text(encoding="utf-8"))
    _copy_folder(home / EXPECTATIONS, folder / EXPECTATIONS)
    if not (folder / MARK).exists():
        _init_dvc(folder)
    say(f"{folder}: workspace of {config}; next: cd {folder} && dvc repro")
    if remark:
        say(f"note: {remark}")


def edited_since(path: Path) -> str:
    """What to say where a workspace's params.yaml was made from a file that has changed since; else nothing."""
    try:
        with path.open(encoding="utf-8") as file:
            made, origin = file.readline(), ORIGIN_LINE.fullmatch(file.readline())
        if not origin or _digest(path.parent / origin["path"]) == origin["digest"]:
            return ""
    except (OSError, UnicodeDecodeError):  # its own reader says what is wrong; a file that has gone was not edited
        return ""
    command = made.partition("`")[2].partition("`")[0]
    return f"{path}: {origin['path']} has changed since this was made; `{command}` takes it over"


def check_tracked(path: Path, params: Params) -> None:
    """Check that a params.yaml beside a dvc.yaml holds what that tracks: DVC knows nothing of the schema's defaults.

    Raises WorkspaceError with the lines to add, each with its default.
    """
    stages = path.parent / STAGES_FILE
    if path.name != PARAMS_FILE.name or not stages.exists():
        return
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    lacking = _lacking(raw, stages)
    if not lacking:
        return
    defaults = params.model_dump(mode="json")
    missing: dict[str, Any] = {}
    for key in lacking:
        value = _value(defaults, key)
        # An empty section means its defaults.
        _fill(missing, key, {} if isinstance(value, dict) else value)
    lines = (
        yaml.dump({name: value}, Dumper=_PlainDumper, default_flow_style=True, width=1000).strip()[1:-1]
        for name, value in missing.items()
    )
    raise WorkspaceError(
        f"{path}: lacks {', '.join('.'.join(key) for key in lacking)}, which {stages.name} tracks; "
        f"add {', '.join(f'`{line}`' for line in lines)}"
    )


def _lacking(raw: Mapping[str, Any], stages: Path) -> list[tuple[str, ...]]:
    """The keys that a dvc.yaml takes from the parameter file and that are not in it, a section before its keys."""
    return [key for key in _tracked(stages) if not _has(raw, key)]


def _tracked(stages: Path) -> list[tuple[str, ...]]:
    """The keys of params.yaml that the stages of a dvc.yaml name: as parameters, or in templates."""
    try:
        described = yaml.safe_load(stages.read_text(encoding="utf-8"))["stages"].values()
        found = {key for stage in described for key in stage.get("params", ()) if isinstance(key, str)}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{stages}: cannot be read as DVC's stages ({type(error).__name__}); restore it") from None
    found |= {name for text in _texts(list(described)) for name in TEMPLATE.findall(text)}
    # `item` is the stage's own, and a key with a template in it lies in the section that its matrix names.
    keys = (tuple(key.split(".")) for key in found if not TEMPLATE.search(key))
    return sorted((key for key in keys if key[0] != "item"), key=lambda key: (len(key), key))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _has(values: object, key: tuple[str, ...]) -> bool:
    for part in key:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _value(values: Any, key: tuple[str, ...]) -> Any:
    for part in key:
        values = values[part]
    return values


def _fill(values: dict[str, Any], key: tuple[str, ...], value: object) -> None:
    for part in key[:-1]:
        values = values.setdefault(part, {})
    values.setdefault(key[-1], value)


def _home(config: Path) -> Path:
    """The folder with dvc.yaml: the current one, else the nearest above the parameter file."""
    for folder in (Path(), *config.resolve().parents):
        if (folder / STAGES_FILE).exists() and (folder / EXPECTATIONS).is_dir():
            return folder
    raise WorkspaceError(f"no {STAGES_FILE} with {EXPECTATIONS}/ here or above {config}; run in the gfm repository")


def _claim(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder}: is a file; give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"{folder}: cannot be made ({error.strerror}); give another folder") from None
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


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Write atomically, and not at all where nothing changed: file times stay true."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    write_whole(path, text)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values out: a reader should not have to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True
