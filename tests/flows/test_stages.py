"""A stage as a task: which ones there are, whether it ran, and whether another try could help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

Load = Callable[[str], ModuleType]


def test_a_groups_name_means_all_its_stages_in_the_order_of_the_file(workspace: Path, flow_module: Load) -> None:
    stages = flow_module("stages")
    assert stages.choose_stages(workspace, None) == ["one", "group@x", "group@y"]
    assert stages.choose_stages(workspace, ["group"]) == ["group@x", "group@y"]
    assert stages.choose_stages(workspace, ["group@y", "one"]) == ["one", "group@y"]
    with pytest.raises(stages.PipelineError, match="no stage two in"):
        stages.choose_stages(workspace, ["two"])


def test_a_stage_reports_whether_it_ran(workspace: Path, flow_module: Load) -> None:
    stages = flow_module("stages")
    assert stages.reproduce.fn("one", str(workspace)).state == "ran"
    assert stages.reproduce.fn("one", str(workspace)).state == "up to date"
    assert stages.reproduce.fn("one", str(workspace), force=True).state == "ran"


@pytest.mark.parametrize("left", [0, 40, 200])
def test_a_dvc_lock_that_a_kill_cut_off_does_not_stop_the_next_flow(
    workspace: Path, flow_module: Load, left: int
) -> None:
    stages = flow_module("stages")
    stages.reproduce.fn("one", str(workspace))
    lock = workspace / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:left])
    assert "one" in stages.choose_stages(workspace, None)
    stages.reproduce.fn("one", str(workspace))
    assert lock.read_bytes() == whole


def test_a_dvc_lock_in_conflict_is_left_to_the_person_who_merges(workspace: Path, flow_module: Load) -> None:
    stages, lock = flow_module("stages"), workspace / "dvc.lock"
    lock.write_text("<<<<<<< ours\nschema: '2.0'\n=======\n>>>>>>> theirs\n", encoding="utf-8")
    with pytest.raises(stages.PipelineError, match=r"dvc\.lock"):
        stages.choose_stages(workspace, None)
    assert lock.exists()


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("import sys; sys.exit('gfm: data/raw/a.tif: cannot be read; replace it')", False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", True),
        ("import sys; sys.exit('Connection reset by peer')", True),
    ],
)
def test_only_what_may_be_gone_the_next_time_is_tried_again(
    workspace: Path, flow_module: Load, step: str, again: bool
) -> None:
    stages = flow_module("stages")
    (workspace / "step.py").write_text(step, encoding="utf-8")
    with pytest.raises(stages.PipelineError, match="stage one failed") as caught:
        stages.reproduce.fn("one", str(workspace))
    assert stages.may_pass(None, None, SimpleNamespace(data=caught.value)) is again


def test_a_flow_that_was_told_to_stop_begins_nothing_more(workspace: Path, flow_module: Load) -> None:
    stages = flow_module("stages")
    stages.stop_stages()
    with pytest.raises(stages.PipelineError, match="not begun"):
        stages.reproduce.fn("one", str(workspace))
    assert not (workspace / "one.txt").exists()
