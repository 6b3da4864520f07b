"""The versions of the registered model, as the registry has them: read for promotion and lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gfm.params import Params
from gfm.tracking.registry import ALIAS as CHALLENGER
from gfm.tracking.runs import NOTHING
from gfm.tracking.store import TrackingError, import_mlflow, open_store, sqlite_path, working_folder_lock

CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the registered model."""

    number: str
    run_id: str  # that made it
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Registry:
    """The registered model in the store of tracking.uri."""

    client: Any
    experiment: str  # its id
    name: str

    def aliases(self) -> dict[str, str]:
        """The numbers of `champion` and `challenger` where there are such; TrackingError where there is no version."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"tracking.registered_model = {self.name}: has no version yet; `gfm pretrain NAME` registers one"
            ) from None
        return {alias: str(found[alias]) for alias in (CHAMPION, CHALLENGER) if alias in found}

    def version(self, number: str) -> Version:
        """A version by its number; TrackingError names those that there are."""
        found = {version.number: version for version in self.versions()}
        if number not in found:
            raise TrackingError(
                f"{self.name} has no version {number}; it has {', '.join(found) or 'none: `gfm pretrain NAME`'}"
            )
        return found[number]

    def versions(self) -> list[Version]:
        """Every version, the oldest first."""
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                break
        made = [Version(str(entry.version), str(entry.run_id), dict(entry.tags)) for entry in found]
        return sorted(made, key=lambda version: int(version.number))

    def numbered(self, wanted: int | str) -> Version:
        """The version of a number, or the one that an alias stands for now; TrackingError where there is none."""
        if isinstance(wanted, int):
            return self.version(str(wanted))
        aliases = self.aliases()
        if wanted not in aliases:
            raise TrackingError(f"{self.name} has no {wanted}; name one of its versions, or run `gfm promote`")
        return self.version(aliases[wanted])

    def fetch(self, version: Version, folder: Path) -> Path:
        """Copy a version's files below `folder`; returns the encoder's own folder among them."""
        from mlflow.exceptions import MlflowException

        try:
            model = Path(self.client.download_artifacts(version.run_id, "model", str(folder)))
            about = yaml.safe_load((model / "MLmodel").read_text(encoding="utf-8"))
            return model / str(about["flavors"]["python_function"]["artifacts"]["encoder"]["path"])
        except (MlflowException, OSError, KeyError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrackingError(
                f"{self.name} version {version.number}: its files cannot be had ({type(error).__name__}: {reason}); "
                "restore the artifacts of its run, or take another version"
            ) from None


def open_registry(params: Params, model: str | None = None) -> Registry:
    """The registry that `gfm pretrain` writes to, or another `model` there; TrackingError where none can be read."""
    uri = params.tracking.uri
    if uri == NOTHING:
        raise TrackingError(
            "tracking.uri = none: no model is registered; set it to sqlite:///mlflow.db or a server, then pretrain"
        )
    try:
        import_mlflow()
    except ImportError as error:
        raise TrackingError(f"mlflow cannot be imported ({error}); install it to read the registry") from None
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise TrackingError(f"tracking.uri = {uri}: no such file; run `dvc repro`, which records and registers")
    with working_folder_lock():
        client, experiment = open_store(uri, params.tracking.experiment)
    return Registry(client, experiment, model or params.tracking.registered_model)


__all__ = ["CHALLENGER", "CHAMPION", "Registry", "Version", "open_registry"]
