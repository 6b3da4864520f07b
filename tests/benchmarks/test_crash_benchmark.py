"""`python benchmarks/crash.py`: it sees what a kill leaves behind, and finds nothing behind a stage of this project."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
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
    for name in ("crash", "toy_workspace"):
        sys.modules.pop(name, None)


@pytest.fixture
def stage(crash: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trials of a stage that does what the given lines say."""
    monkeypatch.setattr(crash.Room, "_mount", lambda *arguments: False)
    monkeypatch.setattr(crash, "PATIENCE_S", 2.0)
    (tmp_path / "prepared/raw").mkdir(parents=True)
    work = tmp_path / "prepared/work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=work, check=True)
    (work / "dvc.yaml").write_text(f"stages: {{toy: {{cmd: {sys.executable} step.py, outs: [out]}}}}")

    def make(lines: str) -> Any:
        (work / "step.py").write_text(WRITES.format(lines))
        room = crash.Room(tmp_path / "disk")
        return crash.Crash(crash.Stage("toy", (), ("out/**/*",)), work, room, random.Random(0))

    return make


@pytest.mark.parametrize(
    ("lines", "target", "found"),
    [(HALF, "all", "out/x is not whole under its final name"), (LEAVES, "dvc", "processes left after 2 s")],
)
def test_what_a_kill_leaves_behind_is_seen(stage: Any, lines: str, target: str, found: str) -> None:
    made = stage(lines)

    def until_it_writes(process: subprocess.Popen[bytes], share: float) -> None:
        while not list((made.work / "out").glob("*")):
            assert process.poll() is None
        time.sleep(share)

    made._wait = until_it_writes
    assert found in made._trial("kill", target, 0.2, sys.modules["crash"].Tally())


def test_a_stage_that_writes_whole_files_passes(stage: Any) -> None:
    tally = stage(WHOLE).trials("term", 2)
    assert tally.failures == [] and tally.trials == 2


def test_killed_and_without_disk_a_stage_of_the_project_loses_nothing(
    crash: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crash.main(["--times", "1", "--stage", "index"]) == 0
    told = capsys.readouterr()
    assert told.err.count("nothing lost") >= 2
    assert "commit" in told.out and "undisturbed" in told.out
