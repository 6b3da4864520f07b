"""`python benchmarks/crash.py`: it sees what a kill leaves behind, and finds nothing behind a stage of this project."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
WRITES = """
import pathlib, time
time.sleep(0.5)
pathlib.Path("out").mkdir()
{}
"""
HALF = 'file = open("out/x", "w"); file.write("one "); file.flush(); time.sleep(2); file.write("two"); file.close()'
WHOLE = 'time.sleep(1); pathlib.Path("x").write_text("one two"); pathlib.Path("x").replace("out/x")'
LEAVES = 'pathlib.Path("out/x").write_text("one two"); time.sleep(4)'

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("crash")
    for name in ("crash", "crash_room", "crash_run", "crash_trial", "toy_workspace"):
        sys.modules.pop(name, None)


@pytest.fixture
def stage(crash: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trials of a stage that does what the given lines say."""
    monkeypatch.setattr(crash.Room, "_mount", lambda *arguments: False)
    monkeypatch.setattr(sys.modules["crash_trial"], "PATIENCE_S", 2.0)
    (tmp_path / "prepared/raw").mkdir(parents=True)
    work = tmp_path / "prepared/work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=work, check=True)
    (work / "dvc.yaml").write_text(f"stages: {{toy: {{cmd: {sys.executable} step.py, outs: [out]}}}}")

    def make(lines: str) -> Any:
        (work / "step.py").write_text(WRITES.format(lines))
        return crash.Crash(crash.Stage("toy", ("out/**/*",)), work, [crash.Room(tmp_path / "room/disk")])

    return make


@pytest.mark.parametrize(
    ("lines", "target", "found"),
    [(HALF, "all", "out/x is not whole under its final name"), (LEAVES, "dvc", "processes left after 2 s")],
)
def test_what_a_kill_leaves_behind_is_seen(stage: Any, crash: ModuleType, lines: str, target: str, found: str) -> None:
    made = stage(lines)

    def until_it_writes(process: subprocess.Popen[bytes], share: float, working: bool) -> None:
        while not list((made.rooms[0].folder / "work" / "out").glob("*")):
            assert process.poll() is None
        time.sleep(share)

    made._wait = until_it_writes
    assert found in made.trial(crash.Plan("toy", "kill", 0, target, True, 0.2)).failure


def test_a_stage_that_writes_whole_files_passes(stage: Any, crash: ModuleType) -> None:
    made = stage(WHOLE)
    for number, target in enumerate(("stage", "all")):  # in the midst: DVC's own last moment, of dvc.lock, may fail
        assert made.trial(crash.Plan("toy", "term", number, target, False, 0.5)).failure == ""


def test_killed_and_without_disk_a_stage_of_the_project_loses_nothing(
    crash: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "crash.jsonl"
    options = ["--times", "1", "--stage", "index", "--jobs", "2", "--results", str(results)]
    assert crash.main(options) == 0
    told = capsys.readouterr()
    assert told.err.count("nothing lost") >= 2
    assert "commit" in told.out and "undisturbed" in told.out
    trials = [json.loads(line) for line in results.read_text().splitlines()]
    assert {trial["kind"] for trial in trials} >= {"kill", "term"} and all(trial["commit"] for trial in trials)
    assert crash.main([*options, "--kind", "kill", "term"]) == 0  # nothing is done twice
    assert capsys.readouterr().err == ""


def test_what_failed_is_tried_again_at_another_commit_only(crash: ModuleType, tmp_path: Path) -> None:
    file, plan = tmp_path / "crash.jsonl", crash.Plan.draw(0, "index", "kill", 0)
    assert plan == crash.Plan.draw(0, "index", "kill", 0)
    trial = {
        "stage": "index",
        "kind": "kill",
        "number": 0,
        "undisturbed_s": 7.0,
        **asdict(sys.modules["crash_trial"].Outcome("gone")),
    }
    results = crash.Results(file, 0)
    assert not results.settles(plan)
    file.write_text('{"stage": "index", "ki')  # as a benchmark leaves it that was killed
    results = crash.Results(file, 0)
    results.add(trial)
    again = crash.Results(file, 0)
    assert again.settles(plan)
    again.commit = "another"
    assert not again.settles(plan)
    again.add({**trial, "failure": ""})
    assert again.settles(plan) and not crash.Results(file, 0).failures("index", "kill")
