"""The MLflow store behind tracking.uri: opened quietly, created safely by any number of processes at once."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gfm.errors import GfmError
from gfm.redaction import without_user

STATE = Path(".gfm")  # in the working folder: the lock, and which pipeline run is open
REACH_TIMEOUT_S = 10.0
GONE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # what MLflow calls a store that does not answer

# MLflow retries a dead server for minutes by default; a training run must not stand still for that long.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(GfmError):
    """The tracking store cannot be used; names tracking.uri and the fix."""


def import_mlflow() -> Any:
    """The mlflow module, without its telemetry and chatter; ImportError where it is not installed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


@contextmanager
def working_folder_lock() -> Iterator[None]:
    """Held by one process of this working folder at a time; the system releases it when a process dies."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "tracking.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_store(uri: str, experiment: str) -> tuple[Any, str]:
    """An MlflowClient and the id of the experiment, made if new. Call it under `working_folder_lock`.

    Raises TrackingError where the server does not answer, the database cannot be used or the experiment was deleted.
    """
    mlflow = import_mlflow()
    path, address = sqlite_path(uri), uri
    if path is not None:
        _create_database(uri, path)
        # MLflow keeps stores open by their address, and a relative one means another file after a change of folder.
        address = f"sqlite:///{path.resolve()}"
    elif uri.startswith(("http://", "https://")):
        _reach(uri)
    from alembic.util.exc import CommandError  # of a database that another version of MLflow has made

    try:
        client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        return client, _experiment(client, uri, experiment)
    except (mlflow.exceptions.MlflowException, CommandError, OSError) as error:
        reason = " ".join(str(error).split())
        raise TrackingError(f"tracking.uri = {uri}: {reason[:300]}; {_fix(uri, reason)}") from error


@contextmanager
def gone_is_an_error(uri: str) -> Iterator[None]:
    """For commands that read and write the store as a whole: TrackingError where it goes away in their midst."""
    try:
        import_mlflow()
        from mlflow.exceptions import MlflowException
    except ImportError:
        yield
        return
    try:
        yield
    except (MlflowException, ConnectionError, TimeoutError) as error:
        if getattr(error, "error_code", GONE[0]) not in GONE:
            raise
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(
            f"tracking.uri = {uri}: the store went away, or is full ({reason}); run the same command again when it "
            "answers: it finishes what was begun"
        ) from error


def sqlite_path(uri: str) -> Path | None:
    """The file of a `sqlite:///` address, else None."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _create_database(uri: str, path: Path) -> None:
    """Make a missing SQLite store beside its final name and move it there complete.

    Two processes that migrate one fresh file break it for good, and so does a kill half-way: hence the lock around
    this and the move at the end.
    """
    if path.exists() and _has_tables(uri, path):
        return
    if not path.parent.is_dir():
        raise TrackingError(f"tracking.uri = {uri}: there is no folder {path.parent}; create it or choose another")
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    engine = create_sqlalchemy_engine(f"sqlite:///{fresh}")
    _initialize_tables(engine)
    engine.dispose()
    fresh.replace(path)


def _has_tables(uri: str, path: Path) -> bool:
    try:
        with sqlite3.connect(path, timeout=30) as database:
            return bool(database.execute("select count(*) from sqlite_master").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise TrackingError(
            f"tracking.uri = {uri}: {path} is not a usable SQLite file ({error}); move it away or choose another"
        ) from error


def _reach(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{without_user(uri).rstrip('/')}/health", timeout=REACH_TIMEOUT_S):
            return
    except urllib.error.HTTPError:
        return  # something answers there; what it refuses, MLflow's own call will say
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"tracking.uri = {uri}: no tracking server answers ({reason}); start it, or set tracking.uri to "
            "sqlite:///mlflow.db, or to none to record nothing"
        ) from error


def _experiment(client: Any, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another machine was faster
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment = {name} was deleted in {uri}; restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or choose another name"
        )
    return str(found.experiment_id)


def _fix(uri: str, reason: str) -> str:
    if "revision" in reason:
        return "another version of MLflow made this database; use that version, or give another address"
    if "schema" in reason:
        return f"back the database up, then run mlflow db upgrade {uri}"
    return "give a sqlite:/// file, the address of a tracking server, or none"
