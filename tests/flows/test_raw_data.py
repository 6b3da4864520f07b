"""Raw data that changed and nobody said so stop the flow; those that data.dvc announces are fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]
Dvc = Callable[..., None]
ASSEMBLE = "stages:\n  assemble: {cmd: python step.py one, deps: [../imagery], outs: [one.txt]}\n"


@pytest.fixture
def versioned(workspace: Path, dvc: Dvc) -> Path:
    """A workspace with one raw file that data.dvc names."""
    raw = workspace / "data/raw"
    raw.mkdir(parents=True)
    (raw / "a.tif").write_bytes(b"1")
    (workspace / "data.dvc").write_text("outs: [{path: data/raw}]\n", encoding="utf-8")
    dvc(workspace, "commit", "-f", "data.dvc")
    return workspace


def test_changed_raw_data_stop_the_flow_until_they_are_accepted(versioned: Path, flow_module: Load) -> None:
    raw_data = flow_module("raw_data")
    raw_data.check_raw_data(versioned, False)
    (versioned / "data/raw/b.tif").write_bytes(b"2")
    with pytest.raises(raw_data.RawDataChanged, match=r"differ from data\.dvc"):
        raw_data.check_raw_data(versioned, False)
    raw_data.check_raw_data(versioned, True)
    raw_data.check_raw_data(versioned, False)


def test_a_pull_brings_what_data_dvc_names_and_never_overwrites_what_nobody_announced(
    versioned: Path, flow_module: Load, dvc: Dvc
) -> None:
    raw_data = flow_module("raw_data")
    dvc(versioned, "remote", "add", "-d", "store", str(versioned.parent / "store"))
    dvc(versioned, "push", "data.dvc")
    shutil.rmtree(versioned / "data/raw")
    shutil.rmtree(versioned / ".dvc/cache")
    raw_data.pull.fn(str(versioned))
    assert (versioned / "data/raw/a.tif").read_bytes() == b"1"

    for name, content in (("a.tif", b"other"), ("b.tif", b"2")):  # changed, added
        (versioned / "data/raw" / name).unlink(missing_ok=True)
        (versioned / "data/raw" / name).write_bytes(content)
        with pytest.raises(raw_data.RawDataChanged, match=r"differ from data\.dvc"):
            raw_data.pull.fn(str(versioned))
        assert (versioned / "data/raw" / name).read_bytes() == content
        dvc(versioned, "checkout", "--force", "data.dvc")


def test_without_data_dvc_the_raw_data_are_those_that_the_collection_was_built_from(
    workspace: Path, flow_module: Load, dvc: Dvc
) -> None:
    raw_data = flow_module("raw_data")
    imagery = workspace.parent / "imagery"
    imagery.mkdir()
    (imagery / "a.tif").write_bytes(b"1")
    (workspace / "dvc.yaml").write_text(ASSEMBLE, encoding="utf-8")
    raw_data.pull_raw_data(workspace)
    raw_data.check_raw_data(workspace, False)  # never built: nothing can have changed
    dvc(workspace, "repro")
    raw_data.check_raw_data(workspace, False)
    (imagery / "b.tif").write_bytes(b"2")
    with pytest.raises(raw_data.RawDataChanged, match=r"changed since the collection was built: .*imagery"):
        raw_data.check_raw_data(workspace, False)
    raw_data.check_raw_data(workspace, True)


def test_the_state_of_the_run_names_the_reason(workspace: Path, flow_module: Load) -> None:
    chain, stages = flow_module("chain"), flow_module("stages")
    assert isinstance(chain._named(stages.PipelineError("x"), "validate", workspace), stages.PipelineError)
    (workspace / "reports").mkdir()
    (workspace / "reports/validation_failed.json").write_text(json.dumps({}), encoding="utf-8")
    assert chain._named(stages.PipelineError("x"), "validate", workspace).state == "ValidationFailed"
    assert chain._named(stages.PipelineError("x"), "split", workspace).state == "Failed"
