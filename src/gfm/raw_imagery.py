"""Whether the imagery that a parameter file declares is where it says."""

from __future__ import annotations

from pathlib import Path

import yaml

from gfm.params import ParameterError, Params

_SHOWN = 3


def check_imagery(params: Params, home: Path) -> str:
    """Look for `paths.raw` and every root below it, of sources, tasks and land cover.

    `home` is the parameter file's folder. Returns a remark where DVC tracks a raw folder that is not there yet, else
    "". ParameterError names the roots that are missing.
    """
    raw = home / params.paths.raw
    if not _is_folder(raw):
        if _tracked(raw, home):
            return f"{params.paths.raw} is not there yet: `dvc pull` fetches it, `gfm sample` makes the sample's"
        raise ParameterError(
            f"paths.raw = {params.paths.raw}: no such folder; put the imagery there, or correct the path, which starts "
            "at the parameter file"
        )
    sources = {name: source for name, source in params.geopile.sources.items() if source.store is None}
    roots = {f"geopile.sources.{name}.root": source.root for name, source in sources.items()}
    roots |= {f"tasks.{name}.data.root": task.data.root for name, task in params.tasks.items()}
    if params.geopile.land_cover is not None:
        roots["geopile.land_cover.root"] = params.geopile.land_cover.root
    missing = [f"{key} = {root}" for key, root in roots.items() if not _is_folder(raw / root)]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ParameterError(f"{', '.join(missing[:_SHOWN])}{more}: no such folder below paths.raw = {raw}")
    return ""


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, or with a null byte in it
        return False


def _tracked(raw: Path, home: Path) -> bool:
    """Whether a .dvc file beside the parameters makes this folder."""
    made = set()
    for file in home.glob("*.dvc"):
        if file.is_file():
            try:
                outs = yaml.safe_load(file.read_text(encoding="utf-8"))["outs"]
                made |= {(home / out["path"]).resolve() for out in outs}
            except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
                raise ParameterError(f"{file}: cannot be read as DVC's ({type(error).__name__}); restore it") from None
    try:
        return raw.resolve() in made
    except (OSError, ValueError):
        return False
