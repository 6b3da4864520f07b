"""A workspace runs the same stages with other parameters, and making it touches nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gfm.params import ParameterError, load
from gfm.workspace import WorkspaceError, check_tracked, edited_since, make_workspace

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the real stages and parameters, some imagery, and one ignored folder for workspaces."""
    home = tmp_path / "repository"
    (home / "configs").mkdir(parents=True)
    (home / "expectations").mkdir()
    (home / "expectations/manifest.json").write_text("{}", encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", home)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["paths"] = {"raw": "../../imagery"}
    (home / "configs/other.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    declared = [*raw["geopile"]["sources"].values(), *(task["data"] for task in raw["tasks"].values())]
    for one in declared:
        (tmp_path / "imagery" / one["root"]).mkdir(parents=True)
    (tmp_path / "imagery/a.tif").write_bytes(b"1")
    (home / ".gitignore").write_text("/workspaces/\n", encoding="utf-8")
    git = ["git", "-C", str(home), "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "init", "-q"], check=True)
    run(home, "init", "-q")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "start"], check=True)
    monkeypatch.chdir(home)
    return home


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "tmp" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_workspace_lists_all_stages_and_reads_the_same_imagery(repository: Path) -> None:
    make_workspace(Path("configs/other.yaml"), Path("workspaces/other"))
    folder = repository / "workspaces/other"
    stages = run(folder, "stage", "list", "--name-only").split()
    assert stages[:3] == ["assemble", "index", "split"] and "finetune@change-gfm" in stages
    raw = load(folder / "params.yaml").paths.raw.path
    assert (folder / raw).resolve() == (repository.parent / "imagery").resolve()
    assert (folder / "dvc.yaml").read_bytes() == (repository / "dvc.yaml").read_bytes()
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""


@pytest.mark.slow
def test_a_stage_runs_once_over_imagery_outside_the_workspace(repository: Path) -> None:
    make_workspace(Path("configs/other.yaml"), Path("workspaces/other"))
    folder = repository / "workspaces/other"
    stages = (folder / "dvc.yaml").read_text(encoding="utf-8")
    step = f"{sys.executable} -c \"import os; os.makedirs('data/geopile/shards')\""
    (folder / "dvc.yaml").write_text(stages.replace("cmd: gfm assemble", f"cmd: {step}"), encoding="utf-8")
    assert "Running stage 'assemble'" in run(folder, "repro", "-s", "assemble")
    assert "didn't change, skipping" in run(folder, "repro", "-s", "assemble")
    (repository.parent / "imagery/b.tif").write_bytes(b"2")
    assert "Running stage 'assemble'" in run(folder, "repro", "-s", "assemble")


def test_made_again_it_takes_new_parameters_and_leaves_outputs_alone(repository: Path) -> None:
    config, folder = Path("configs/other.yaml"), Path("workspaces/other")
    make_workspace(config, folder)
    (folder / "models").mkdir()
    (folder / "models/weights").write_bytes(b"precious")
    (folder / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    before = contents(folder)
    make_workspace(config, folder)
    assert contents(folder) == before

    config.write_text(config.read_text(encoding="utf-8").replace("seed: 0", "seed: 5"), encoding="utf-8")
    (repository / "expectations/manifest.json").unlink()
    (repository / "expectations/splits.json").write_text("[]", encoding="utf-8")
    make_workspace(config, folder)
    assert load(folder / "params.yaml").seed == 5
    assert [path.name for path in (folder / "expectations").iterdir()] == ["splits.json"]
    assert (folder / "models/weights").read_bytes() == b"precious"


def test_a_parameter_file_without_paths_still_means_the_imagery_beside_it(repository: Path) -> None:
    config = repository / "configs/other.yaml"
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    del raw["paths"]
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    shutil.copytree(repository.parent / "imagery", repository / "configs/data/raw")
    make_workspace(config, Path("workspaces/other"))
    found = load(Path("workspaces/other/params.yaml")).paths.raw.path
    assert (repository / "workspaces/other" / found).resolve() == repository / "configs/data/raw"


def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_was(repository: Path) -> None:
    folder = Path("workspaces/thesis")
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text("mine: 1\n", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="not empty and not a workspace"):
        make_workspace(Path("configs/other.yaml"), folder)
    assert contents(folder) == {"params.yaml": b"mine: 1\n"}


def test_a_wrong_parameter_file_makes_nothing(repository: Path) -> None:
    config = Path("configs/other.yaml")
    config.write_text(config.read_text(encoding="utf-8") + "\nunknown: 1\n", encoding="utf-8")
    with pytest.raises(ParameterError, match="unknown"):
        make_workspace(config, Path("workspaces/other"))
    assert not Path("workspaces").exists()


@pytest.mark.parametrize("lacking", ["carbon", "evaluate", "validation", "models", "paths", "splits", "seed"])
def test_a_workspace_gets_what_dvc_yaml_tracks_and_its_parameter_file_leaves_to_defaults(
    repository: Path, lacking: str
) -> None:
    config = Path("configs/other.yaml")
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    raw.pop(lacking, None)
    if lacking == "paths":
        shutil.copytree(repository.parent / "imagery", repository / "configs/data/raw")
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    make_workspace(config, Path("workspaces/other"))
    made = Path("workspaces/other/params.yaml")
    check_tracked(made, load(made))
    assert load(made).model_dump(exclude={"paths"}) == load(config).model_dump(exclude={"paths"})


def test_check_names_the_sections_that_dvc_yaml_tracks_with_the_lines_to_add(repository: Path) -> None:
    raw = yaml.safe_load(Path("configs/other.yaml").read_text(encoding="utf-8"))
    for section in ("carbon", "evaluate", "splits", "seed", "models"):
        raw.pop(section, None)
    path = Path("params.yaml")
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(WorkspaceError) as caught:
        check_tracked(path, load(path))
    assert str(caught.value) == (
        "params.yaml: lacks carbon, evaluate, models, seed, splits, splits.block_km, splits.find_shifted, "
        "splits.val_share, which dvc.yaml tracks; "
        f"add `carbon: {{}}`, `evaluate: {{}}`, `models: [random, teacher, gfm]`, `seed: 0`, "
        f"`splits: {{block_km: {load(path).splits.block_km}, find_shifted: false, val_share: 0.05}}`"
    )
    for line in str(caught.value).split("`")[1::2]:
        path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    check_tracked(path, load(path))
    assert "finetune@change-gfm" in run(repository, "stage", "list", "--name-only")  # DVC can read it now


def test_a_parameter_file_that_no_dvc_yaml_reads_may_leave_everything_to_defaults(repository: Path) -> None:
    raw = yaml.safe_load(Path("configs/other.yaml").read_text(encoding="utf-8"))
    raw.pop("carbon", None)
    for path in (Path("configs/params.yaml"), Path("mine.yaml")):
        path.write_text(yaml.safe_dump(raw), encoding="utf-8")
        check_tracked(path, load(path))


def test_a_workspace_says_that_its_configuration_was_edited_since(repository: Path) -> None:
    config, made = Path("configs/other.yaml"), Path("workspaces/other/params.yaml")
    make_workspace(config, made.parent)
    assert edited_since(made) == "" and edited_since(config) == "" and edited_since(Path("missing.yaml")) == ""
    config.write_text(config.read_text(encoding="utf-8").replace("seed: 0", "seed: 1", 1), encoding="utf-8")
    told = edited_since(made)
    assert "configs/other.yaml has changed" in told and "`gfm workspace configs/other.yaml workspaces/other`" in told
    make_workspace(config, made.parent)
    assert edited_since(made) == ""
