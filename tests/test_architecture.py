"""The rules of the house hold: import directions, no heavy imports where they do not belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gfm"

FOUNDATION = {
    "params",
    "errors",
    "layout",
    "progress",
    "redaction",
    "output_folder",
    "output_file",
    "compute",
    "lightning_progress",
    "dvc_stage",
    "disk_room",
    "raw_imagery",
}
MIDDLE = {"models", "imagery", "tracking"}
UPPER = {"geopile", "pretraining", "downstream", "evaluation", "inference", "sample", "workspace"}


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module named by an import in the file, also inside functions, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            yield str(node.module), node.lineno


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _files(*rooms: str) -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if not rooms or _room(path) in rooms]


def test_a_newcomer_finds_every_room_in_the_plan() -> None:
    rooms = {_room(path) for path in _files()}
    assert rooms <= FOUNDATION | MIDDLE | UPPER | {"cli", "__init__"}


def test_imports_point_down_and_neighbours_do_not_import_each_other() -> None:
    wrong = []
    for path in _files():
        room = _room(path)
        if room in ("cli", "__init__"):
            continue
        allowed = {room} | FOUNDATION | (MIDDLE if room in UPPER else set())
        for module, line in _imports(path):
            if module.startswith("gfm.") and module.split(".")[1] not in allowed:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("rooms", "forbidden"),
    [
        (("imagery", "geopile", "sample", "evaluation"), {"torch", "lightning", "timm", "torchvision"}),
        (("models",), {"lightning", "mlflow"}),
        (tuple(sorted(FOUNDATION | MIDDLE | UPPER | {"cli"})), {"prefect"}),
    ],
)
def test_a_room_keeps_out_what_does_not_belong_there(rooms: tuple[str, ...], forbidden: set[str]) -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {module}"
        for path in _files(*rooms)
        for module, line in _imports(path)
        if module.split(".")[0] in forbidden
    ]
    assert not wrong, "\n".join(wrong)


def test_training_code_imports_where_the_services_are_not_installed() -> None:
    """Accelerator images have torch, timm and lightning, and none of the rest."""
    absent = ["prefect", "mlflow", "dvc", "great_expectations", "rasterio", "codecarbon"]
    code = f"""
import sys
for name in {absent!r}:
    sys.modules[name] = None  # an import of it raises ImportError
import gfm.pretraining.run, gfm.pretraining.teacher, gfm.downstream.finetune
import gfm.tracking.runs, gfm.tracking.carbon, gfm.tracking.provenance, gfm.tracking.registry
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_is_two_concepts() -> None:
    long = {str(p.relative_to(SOURCE)): n for p in _files() if (n := len(p.read_text().splitlines())) > 450}
    assert not long
