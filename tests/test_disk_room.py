"""A full disk is said as one, and so is what DVC, which can wait on it without a word, needs after a stage."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gfm.disk_room import DVC_BYTES
from gfm.dvc_stage import STAGE_VARIABLE
from gfm.errors import GfmError
from gfm.output_file import write_whole
from gfm.output_folder import new_folder

SIZE = 3_000_000


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """What is printed when a folder is written and so much room is left afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STAGE_VARIABLE, "finetune@land-gfm")

    def write(free: int) -> str:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        with new_folder(Path("models/tasks/land")) as folder:
            (folder / "weights").write_bytes(bytes(SIZE))
        return capsys.readouterr().out

    return write


def test_a_stage_of_dvc_says_that_the_disk_is_too_full_for_dvc(told: Callable[[int], str]) -> None:
    line = told(40_000)
    assert "models/tasks/land: whole" in line and "0.0 MB left" in line and "4.0 MB" in line and "make room" in line


def test_nothing_is_said_where_there_is_room(told: Callable[[int], str]) -> None:
    assert told(SIZE + DVC_BYTES) == ""


def test_a_command_that_a_person_runs_says_nothing_of_dvc(
    told: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STAGE_VARIABLE)
    assert told(0) == ""


def test_a_file_on_a_full_disk_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, encoding: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(GfmError, match=r"report\.html: cannot be written \(No space left on device\); make room"):
        write_whole(tmp_path / "report.html", "")
    assert list(tmp_path.iterdir()) == []
