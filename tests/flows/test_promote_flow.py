"""The promotion's flow says what `gfm promote` said: promoted, refused with the reasons, or failed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FLOW = ROOT / "flows" / "promote.py"


@pytest.fixture
def module(flow_module: Callable[[str], ModuleType]) -> Any:
    """The flow's function without a Prefect run around it."""
    return flow_module("promote")


def answer(module: Any, monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str = "") -> list[tuple[Any, ...]]:
    """`gfm` answers so; the list gets what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def gfm(folder: Path, *words: str) -> Any:
        asked.append((folder, *words))
        return subprocess.CompletedProcess(words, code, out, err)

    monkeypatch.setattr(module, "gfm", gfm)
    return asked


def test_a_closed_gate_is_a_state_with_its_reasons(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = answer(module, monkeypatch, 3, "gfm-encoder version 2 does not become champion\n  - few seeds\n")
    state = module.promote.fn(version=2, workspace=str(tmp_path))
    assert (state.name, state.is_completed()) == ("Refused", True)
    assert state.message.endswith("- few seeds")
    assert asked == [(tmp_path, "promote", "--version=2")]


def test_an_open_gate_is_completed_and_the_words_are_passed_on(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = answer(module, monkeypatch, 0, "gfm-encoder version 1 is champion\n")
    state = module.promote.fn(to=1, reason="clouds as roofs", dry_run=True, workspace=str(tmp_path))
    assert (state.name, state.message) == ("Completed", "gfm-encoder version 1 is champion")
    assert asked[0][1:] == ("promote", "--to=1", "--reason=clouds as roofs", "--dry-run")


@pytest.mark.parametrize(
    ("code", "err"),
    [(2, "gfm: no version is challenger\n"), (1, "Traceback (most recent call last):\nKeyError: 'challenger'\n")],
)
def test_an_error_fails_the_flow_with_its_words(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, err: str
) -> None:
    answer(module, monkeypatch, code, "", err)
    with pytest.raises(module.PipelineError, match="challenger"):
        module.promote.fn(workspace=str(tmp_path))


def test_the_deployment_has_no_schedule_and_only_parameters_of_the_flow(module: Any) -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    (found,) = [entry for entry in deployments if entry["entrypoint"] == "flows/promote.py:promote"]
    assert "schedules" not in found
    assert set(found["parameters"]) <= set(module.promote.parameters.properties)


@pytest.mark.slow
def test_without_a_server_a_missing_parameter_file_ends_it_with_the_commands_own_line(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, str(FLOW), "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**environment, "PREFECT_HOME": str(tmp_path / ".prefect")},
    )
    assert done.returncode == 2, done.stderr
    assert "params.yaml: no such file" in done.stderr
