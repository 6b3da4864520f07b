"""The raw data of a workspace: fetched as data.dvc names them, and a change that nobody announced stops the flow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from stages import PipelineError, dvc, log, may_pass, run_logged

# isort: split
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

RAW_DATA = "data.dvc"
LOCK_FILE = "dvc.lock"
FIRST_STAGE = "assemble"
# DVC overwrites or deletes nothing that its cache does not hold.
UNKNOWN_FILES = re.compile(r"unsaved files without confirmation")


class RawDataChanged(PipelineError):
    """The raw data are not those that the workspace was last built from, and nobody said so."""

    state = "RawDataChanged"


@task(  # type: ignore[untyped-decorator]
    name="dvc pull",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=30),
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
)
def pull(workspace: str) -> None:
    """Bring data/raw to what data.dvc says: from the remote, or from the cache where no remote is set."""
    folder = Path(workspace)
    words = ["pull"] if dvc(folder, "remote", "list").strip() else ["checkout"]
    try:
        run_logged([*words, RAW_DATA], folder, f"dvc {words[0]} {RAW_DATA}")
    except PipelineError as error:
        if UNKNOWN_FILES.search(str(error)):
            raise RawDataChanged(_differ(folder)) from error
        raise


def pull_raw_data(folder: Path) -> None:
    """Get the raw data, where the workspace has versioned ones."""
    if not (folder / RAW_DATA).exists():
        log().info("%s has no %s: the raw data are where paths.raw says, nothing to pull", folder, RAW_DATA)
        return
    pull(str(folder))


def check_raw_data(folder: Path, accept: bool) -> None:
    """Stop where the raw data are not those of data.dvc: DVC itself would take a change in without a word.

    Without a data.dvc they are compared with what dvc.lock says the collection was built from.
    """
    if not (folder / RAW_DATA).exists():
        _check_unversioned(folder, accept)
        return
    if dvc(folder, "status", "--json", RAW_DATA).strip() in ("", "{}"):
        return
    if not accept:
        raise RawDataChanged(_differ(folder))
    dvc(folder, "commit", "--force", RAW_DATA)
    log().warning("changed raw data taken in: %s now holds their hash; commit it with git", RAW_DATA)


def _check_unversioned(folder: Path, accept: bool) -> None:
    lock = folder / LOCK_FILE
    locked = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    if FIRST_STAGE not in ((locked or {}).get("stages") or {}):
        return  # the first run
    found = json.loads(dvc(folder, "status", "--json", FIRST_STAGE) or "{}").get(FIRST_STAGE, [])
    changes = [change["changed deps"] for change in found if isinstance(change, dict) and "changed deps" in change]
    modified = sorted(path for change in changes for path, how in change.items() if how != "new")
    if not modified:
        return
    if not accept:
        raise RawDataChanged(
            f"the raw data of {folder} changed since the collection was built: {', '.join(modified)}; go back to what "
            "they were, or take them in with the flow's parameter accept_new_data"
        )
    log().warning("changed raw data taken in: %s", ", ".join(modified))


def _differ(folder: Path) -> str:
    return (
        f"the raw data in {folder} differ from {RAW_DATA}; go back with `dvc checkout {RAW_DATA}`, or take them in "
        f"with `dvc commit -f {RAW_DATA}` or the flow's parameter accept_new_data"
    )
