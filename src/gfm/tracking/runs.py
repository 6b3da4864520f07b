"""MLflow runs: one parent for a pipeline, one nested child for each stage. Metrics survive a server that goes away."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gfm.errors import Stopped
from gfm.params import Params
from gfm.progress import say
from gfm.redaction import redact
from gfm.tracking import pipeline_run
from gfm.tracking.carbon import Energy
from gfm.tracking.owner import owner_tags
from gfm.tracking.pipeline_run import ERROR_TAG, STOPPED_TAG
from gfm.tracking.provenance import provenance
from gfm.tracking.resumed_run import reopen
from gfm.tracking.store import TrackingError, gone_is_an_error, import_mlflow, open_store, working_folder_lock

FIGURES = ("kwh", "kg_co2eq", "computed_kwh", "computed_kg_co2eq")  # of an energy; the rest says how they are known
NOTHING = "none"  # the tracking.uri that records nothing
ENCODER_TAG = "encoder.run_id"  # of a fine-tuning: the run that made the encoder it adapts
RETRY_AFTER_S = 30.0
PARAMS_A_CALL = 100  # MLflow's limits
LONGEST_PARAM = 6000

_said: set[str] = set()


class Run:
    """A run that records nothing: the shape of a recorded one, for work without MLflow."""

    run_id: str | None = None

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, at a step of training or as the result."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Label the run."""

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file or a folder with the run."""

    def image(self, path: Path, name: str) -> None:
        """Keep a picture under `images/`; the name gets the file's suffix."""

    def dataset(self, name: str, path: Path, digest: str | None) -> None:
        """Name a data set that the run reads, with the hash of its content."""

    def energy(self, energy: Energy) -> None:
        """Record kWh and kg CO2eq with the method that gave them."""


class RecordedRun(Run):
    """A run in MLflow. What the server does not take is kept and sent again later; the work never stops for it."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self.client = client
        self._unsent: deque[Callable[[], object]] = deque()
        self._retry_at = 0.0

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step or 0) for name, value in values.items()]
        self._send(partial(self.client.log_batch, self.run_id, metrics=batch))

    def tags(self, values: Mapping[str, object]) -> None:
        from mlflow.entities import RunTag

        batch = [RunTag(name, _text(value)) for name, value in values.items() if value is not None]
        self._send(partial(self.client.log_batch, self.run_id, tags=batch))

    def artifact(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        if path.is_dir():
            self._send(partial(self.client.log_artifacts, self.run_id, str(path), path.name))
        else:
            self._send(partial(self.client.log_artifact, self.run_id, str(path)))

    def image(self, path: Path, name: str) -> None:
        content = path.read_bytes()
        self._send(partial(self._log_bytes, content, "images", f"{Path(name).stem}{path.suffix}"))

    def dataset(self, name: str, path: Path, digest: str | None) -> None:
        self._send(partial(self._log_dataset, name, path, digest))

    def energy(self, energy: Energy) -> None:
        values = energy.as_dict()
        figures = {name: values.pop(name) for name in FIGURES}
        self.metrics({name: value for name, value in figures.items() if isinstance(value, int | float)})
        self.tags({f"energy.{name}": value for name, value in values.items()})

    def settings(self, values: Mapping[str, Any]) -> None:
        """Record parameters: nested keys joined by dots, and the whole as settings.json."""
        from mlflow.entities import Param

        flat = [Param(name, _text(value)[:LONGEST_PARAM]) for name, value in flatten(values)]
        for start in range(0, len(flat), PARAMS_A_CALL):
            self._send(partial(self.client.log_batch, self.run_id, params=flat[start : start + PARAMS_A_CALL]))
        self._send(partial(self.client.log_dict, self.run_id, _redacted(values), "settings.json"))

    def end(self, status: str) -> None:
        """Close the run, after a last try to send what is still unsent."""
        self._unsent.append(partial(self.client.set_terminated, self.run_id, status=status))
        self.flush()

    def flush(self) -> None:
        """Try for the last time to send what is still unsent, and say what is lost."""
        self._retry_at = 0.0
        self._send_all()
        if self._unsent:
            lost = len(self._unsent)
            say(f"run {self.run_id}: {lost} records were not taken; run.json and history.csv hold the numbers")

    def _send(self, call: Callable[[], object]) -> None:
        self._unsent.append(call)
        self._send_all()

    def _send_all(self) -> None:
        from mlflow.exceptions import MlflowException

        if time.monotonic() < self._retry_at:
            return
        try:
            while self._unsent:
                self._unsent[0]()
                self._unsent.popleft()
        except (MlflowException, ConnectionError, TimeoutError) as error:
            if _is_refusal(error):
                self._unsent.popleft()
                raise
            if self._retry_at == 0.0:
                say(f"run {self.run_id}: the tracking store does not answer, will try again: {_one_line(error)}")
            self._retry_at = time.monotonic() + RETRY_AFTER_S

    def _log_bytes(self, content: bytes, folder: str, name: str) -> None:
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_bytes(content)
            self.client.log_artifact(self.run_id, str(file), folder)

    def _log_dataset(self, name: str, path: Path, digest: str | None) -> None:
        import pandas as pd
        from mlflow.data import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        # The data stay where they are: MLflow gets their name, place and hash. Its digests hold 36 characters.
        frame = pd.DataFrame({"path": [path.as_posix()], "digest": [digest or "unknown"]})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The specified dataset source can be interpreted in multiple ways")
            dataset = from_pandas(frame, source=path.as_posix(), name=name, digest=(digest or "unknown")[:36])
        tags = [InputTag("mlflow.data.context", "input"), InputTag("path", path.as_posix())]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])


@contextmanager
def child_run(
    params: Params,
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    seed: int | None = None,
    resume_run_id: str | None = None,
    below: Run | None = None,
    data: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Record one stage below the pipeline's run: settings, code, data and seed now, the rest through the yielded run.

    `data` is the version of the collection that it is made from, where that is not the collection as it is now.

    `kind` is the command (pretrain, finetune, …), `name` what tells this run from others of its kind. With
    `resume_run_id` the stage goes on in the run that it began before it was interrupted, with the settings and origin
    of then, or in a new one where that is gone or finished (see `resumed_run.reopen`, which refuses a foreign run).
    With `below` this is a part of that stage, whose error is the stage's to judge.
    The run ends FINISHED, FAILED or KILLED (by a signal, or where its limits stopped it, which the tag `gfm.stopped`
    names), with the error as its tag `error`. An error or a limit closes the pipeline's run likewise (not one named by
    GFM_PIPELINE_RUN); after a kill or Ctrl-C the next stage goes on below the same one. Where nothing is recorded
    (tracking.uri = none, no mlflow, a follower process of a distributed run) the yielded run has run_id None. Raises
    TrackingError where the store cannot be reached, or written to, at the start.
    """
    if not recording(params):
        yield Run()
        return
    uri = params.tracking.uri
    now = provenance(seed)
    origin = origin_tags(now if data is None else now | {"data": dict(data)})
    with gone_is_an_error(uri), working_folder_lock():
        client, experiment = open_store(uri, params.tracking.experiment)
        for orphan in pipeline_run.close_orphans(client, experiment):
            say(f"tracking: closed the run {orphan} of a process that was killed")
        inside = None if below is None else below.run_id
        parent = inside or pipeline_run.parent_run(client, uri, experiment, origin_tags(now))
        tags = {**owner_tags(), pipeline_run.PARENT_TAG: parent}
        run_id = resume_run_id
        if run_id is None or not reopen(client, experiment, run_id, name, kind, tags):
            tags = {**origin, **tags, "gfm.kind": kind}
            run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    run = RecordedRun(client, run_id)
    if run_id != resume_run_id:
        run.settings(settings)
    try:
        yield run
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) and not isinstance(error, Stopped) else "KILLED"
        stopped = {STOPPED_TAG: error.by} if isinstance(error, Stopped) else {}
        run.tags({ERROR_TAG: _reason(error), **stopped})
        run.end(status)
        if isinstance(error, Exception) and inside is None:
            _close_pipeline(client, experiment, parent, status, stopped)
        raise
    run.end("FINISHED")


@contextmanager
def pipeline_fails_with(params: Params) -> Iterator[None]:
    """For a stage without a run of its own: its error closes the pipeline's open run as FAILED, as `child_run` does.

    A kill or Ctrl-C leaves it open, and so does a run named by GFM_PIPELINE_RUN. A store that is gone is said, and
    does not hide the stage's error.
    """
    try:
        yield
    except Exception as error:
        if pipeline_run.FILE.exists() and recording(params):
            uri = params.tracking.uri
            try:
                with working_folder_lock():
                    client, experiment = open_store(uri, params.tracking.experiment)
                    parent = pipeline_run.open_parent(client, uri, experiment)
            except TrackingError as unreachable:
                say(f"the pipeline's run could not be closed as FAILED: {unreachable}")
                parent = None
            if parent is not None:
                _close_pipeline(client, experiment, parent, "FAILED", {ERROR_TAG: _reason(error)})
        raise


def finish_pipeline(
    params: Params,
    artifacts: Collection[Path] = (),
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, object] | None = None,
) -> str | None:
    """Record the final figures, files and tags on the pipeline's run and close it; returns its id.

    Where no run is open, because every training was up to date, artifacts get a run of their own, and without any
    there is nothing to record: None. The tags come last: whoever finds a run by them finds its artifacts.
    The run's kwh and kg_co2eq are the sums over its stages; a tag says how many stages were not measured. A run named
    by GFM_PIPELINE_RUN stays open for whoever opened it.
    """
    if not recording(params):
        return None
    uri = params.tracking.uri
    named = os.environ.get(pipeline_run.VARIABLE)
    with working_folder_lock():
        client, experiment = open_store(uri, params.tracking.experiment)
        pipeline_run.close_orphans(client, experiment)
        parent = named or pipeline_run.open_parent(client, uri, experiment)
        if parent is None and artifacts:
            parent = pipeline_run.parent_run(client, uri, experiment, origin_tags(provenance(None)))
    if parent is None:
        return None
    run = RecordedRun(client, parent)
    sum_energy(run, experiment)
    if metrics:
        run.metrics(metrics)
    for path in artifacts:
        run.artifact(path)
    if tags:
        run.tags(tags)
    if named:
        run.flush()
        return parent
    with working_folder_lock():
        pipeline_run.forget_parent(parent)
    run.end("FINISHED")
    return parent


def _close_pipeline(client: Any, experiment: str, parent: str, status: str, tags: Mapping[str, str]) -> None:
    """Close the pipeline run of a stage that failed or was stopped by its limits.

    A store that is gone is said, and does not hide the stage's error.
    """
    from mlflow.exceptions import MlflowException

    if os.environ.get(pipeline_run.VARIABLE):
        return  # whoever opened it closes it
    with working_folder_lock():
        if not pipeline_run.forget_parent(parent):
            return  # a stage beside this one failed first
    run = RecordedRun(client, parent)
    try:
        run.tags(tags)
        sum_energy(run, experiment)
        run.end(status)
    except (MlflowException, ConnectionError, TimeoutError) as error:
        say(f"run {parent}: the pipeline's run could not be closed as {status}: {_one_line(error)}")


def sum_energy(run: RecordedRun, experiment: str) -> None:
    """Record on a pipeline's run what its stages spent together."""
    assert run.run_id is not None
    stages = [stage.data.metrics for stage in pipeline_run.children(run.client, experiment, run.run_id)]
    measured = [stage for stage in stages if "kwh" in stage and "kg_co2eq" in stage]
    for keys in (FIGURES[:2], FIGURES[2:]):
        known = [stage for stage in stages if all(key in stage for key in keys)]
        if known:
            run.metrics({key: sum(stage[key] for stage in known) for key in keys})
    run.tags({"energy.method": f"sum of {len(measured)} runs; {len(stages) - len(measured)} runs were not measured"})


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as (dotted key, value) pairs; lists stay values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def recording(params: Params) -> bool:
    """Whether this process records runs; where not, it says why (once)."""
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK")):
        return False  # the first process of a distributed run records it
    if params.tracking.uri == NOTHING:
        _say_once("tracking.uri = none: runs are not recorded")
        return False
    try:
        import_mlflow()
    except ImportError as error:
        _say_once(f"mlflow cannot be imported ({error}): runs are not recorded")
        return False
    return True


def origin_tags(origin: Mapping[str, Any]) -> dict[str, str]:
    """A run's tags for its provenance."""
    tags = {f"provenance.{key}": _text(value) for key, value in flatten(origin) if value is not None}
    for tag, key in (("git.commit", "commit"), ("seed", "seed"), ("mlflow.source.git.commit", "commit")):
        if origin[key] is not None:
            tags[tag] = _text(origin[key])
    if origin["data"].get("dvc") is not None:
        tags["data.dvc"] = origin["data"]["dvc"]
    return {**tags, "mlflow.source.name": "gfm", "mlflow.source.type": "LOCAL"}


def _is_refusal(error: Exception) -> bool:
    """Whether the store understood and said no: sending the same again would not help."""
    return getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


def _text(value: object) -> str:
    return redact(value if isinstance(value, str) else json.dumps(value, default=str))


def _redacted(value: Any) -> Any:
    """Nested settings without secrets."""
    if isinstance(value, Mapping):
        return {key: _redacted(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(entry) for entry in value]
    return redact(value) if isinstance(value, str) else value


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_PARAM]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        say(line)
