"""The flows as modules, and a toy workspace for them."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FLOWS = Path(__file__).resolve().parents[2] / "flows"
STAGES = """stages:
  one: {cmd: python step.py one, params: [a], outs: [one.txt]}
  group:
    matrix: {n: "${names}"}
    cmd: python step.py ${item.n}
    deps: [one.txt]
    outs: ["${item.n}.txt"]
"""
STEP = """import os, pathlib, sys, time
name = sys.argv[1]
print("step", name)
if pathlib.Path("broken-" + name).exists():
    sys.exit("gfm: data/raw/thing.tif: cannot be read; replace it")
if pathlib.Path("long-" + name).exists():
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(100)
pathlib.Path(name + ".txt").write_text(name)
"""
Dvc = Callable[..., None]


@pytest.fixture
def flow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Gives a file of flows/ as a module, fresh for this test."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.syspath_prepend(str(FLOWS))
    names = [path.stem for path in FLOWS.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def dvc() -> Dvc:
    """Runs a DVC command in a folder."""
    return _dvc


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A DVC repository with a stage and a matrix of two."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (folder / "params.yaml").write_text("a: 1\nnames: {x: {}, y: {}}\n", encoding="utf-8")
    (folder / "step.py").write_text(STEP, encoding="utf-8")
    _dvc(folder, "init", "--no-scm", "-q")
    return folder


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process lives; a zombie does not."""

    def look(pid: int) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        try:
            return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return look


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """Waits for a condition and gives what it gave."""

    def wait(condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.1)
        raise AssertionError("waited in vain")

    return wait


def _dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)
