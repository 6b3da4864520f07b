"""Provenance: what a number came from, and null rather than something wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

import gfm
from gfm.errors import DataError
from gfm.tracking import provenance as module
from gfm.tracking.provenance import code_version, dvc_hash, provenance, run_of

LOCK = """schema: '2.0'
stages:
  index: {cmd: gfm index, outs: [{path: data/tasks, md5: t.dir}]}
  assemble: {cmd: gfm assemble, outs: [{path: data/geopile, hash: md5, md5: abc.dir}]}
"""


def test_the_commit_is_the_sources_wherever_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(gfm.__file__).parent
    head = subprocess.run(["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("the tests run outside a git repository")
    monkeypatch.chdir(tmp_path)
    found = provenance(5)
    assert found["commit"] == head.stdout.strip()
    assert found["seed"] == 5
    assert found["hardware"]["cores"] > 0 and found["hardware"]["cpu"]  # type: ignore[index,call-overload,operator]
    assert found["data"] == {"dvc": None, "manifest": None, "splits": None}
    json.dumps(found)


def test_the_datas_hashes_come_from_dvc_and_from_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    (tmp_path / "data/geopile").mkdir(parents=True)
    (tmp_path / "data/geopile/manifest.parquet").write_bytes(b"rows")
    data = provenance(None)["data"]
    assert data == {"dvc": "abc.dir", "manifest": xxhash.xxh3_128_hexdigest(b"rows"), "splits": None}
    assert dvc_hash(Path("data/none")) is None


def test_a_broken_lock_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: [<<<<<<<", encoding="utf-8")
    with pytest.raises(DataError, match=r"dvc\.lock: cannot be read"):
        provenance(None)


@pytest.mark.parametrize("inside", [False, True], ids=["no repository", "installed inside another repository"])
def test_code_outside_its_repository_has_no_commit_unless_the_image_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    package = tmp_path / "site-packages/gfm"
    shutil.copytree(Path(gfm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    if inside:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(module, "PACKAGE", package)
    monkeypatch.delenv("GFM_COMMIT", raising=False)
    assert code_version() == (None, None)
    monkeypatch.setenv("GFM_COMMIT", "0123abc")
    assert code_version() == ("0123abc", None)


def test_without_a_git_program_the_commit_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_version() == (None, None)


def test_training_code_can_import_tracking_where_nothing_of_it_is_installed() -> None:
    code = (
        "import sys\n"
        "for name in ('mlflow', 'prefect', 'dvc', 'codecarbon', 'great_expectations', 'rasterio', 'psutil'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parent)!r})\n"
        "from conftest import smallest\n"
        "from gfm.tracking import carbon, provenance, registry, runs\n"
        "params = smallest()\n"
        "provenance.provenance(0)\n"
        "with runs.child_run(params, 'a', 'b', {}) as run, carbon.measure(params.carbon, 'work') as meter: pass\n"
        "run.energy(meter.energy)\n"
        "assert run.run_id is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mlflow cannot be imported" in done.stdout
    assert "not measured: codecarbon is not installed" in done.stdout


def test_the_run_that_made_a_folder_is_read_from_its_record(tmp_path: Path) -> None:
    assert run_of(tmp_path) is None
    for content in ('{"run_id": null}', "[1]", '{"run'):
        (tmp_path / "run.json").write_text(content, encoding="utf-8")
        assert run_of(tmp_path) is None
    (tmp_path / "run.json").write_text('{"run_id": "abc"}', encoding="utf-8")
    assert run_of(tmp_path) == "abc"
