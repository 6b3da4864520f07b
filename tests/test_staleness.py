"""What an edit makes stale: what its result depends on, and nothing more. Asked of DVC, over the real dvc.yaml."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from gfm.params import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished chain in which every output is a file of one line, recorded in dvc.lock; no stage was run."""
    folder, monkeypatch = tmp_path_factory.mktemp("finished"), pytest.MonkeyPatch()
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "expectations").mkdir()
    (folder / "expectations/manifest.json").write_text("{}", encoding="utf-8")
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/image.tif").write_bytes(b"1")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["encoders"] = {"published": {"kind": "checkpoint", "file": "weights.pth", "sha256": "0" * 64, "licence": "MIT"}}
    raw["models"] = ["random", "teacher", "published", "gfm"]
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(folder)
    repo = Repo.init(no_scm=True)
    named = [Path(dependency.fs_path) for stage in repo.index.stages for dependency in stage.deps]
    for path in (Path(output.fs_path) for stage in repo.index.stages for output in stage.outs):
        inside = [one for one in named if path in one.parents]
        for file in [path] if path.suffix else [*inside, path / "run.json"]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'"{path.name}"', encoding="utf-8")
    repo.commit(force=True)
    yield folder
    monkeypatch.undo()


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished chain to edit, in which nothing is stale."""
    folder = tmp_path / "workspace"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    assert stale() == set()
    return folder


def stale() -> set[str]:
    """The stages that DVC would run for what they themselves depend on."""
    return {name.removeprefix("dvc.yaml:") for name in Repo().status()}


def edit(**changes: Any) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        raw[section] = raw[section] | values
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    load()  # still a file that is understood


def write(path: str) -> None:
    """Another content, as of a stage that ran again."""
    Path(path).write_text(json.dumps("made again"), encoding="utf-8")


def test_one_more_source_leaves_alone_what_never_saw_the_collection(workspace: Path) -> None:
    sources = load().geopile.model_dump(mode="json", exclude_unset=True)["sources"]
    edit(geopile={"sources": sources | {"ours": {"format": "scenes", "root": "ours", "licence": "ours"}}})
    assert stale() == {"assemble", "index", "validate", "describe", "pretrain@gfm"}
    for made in ("data/geopile/manifest.parquet", "data/splits/collection.parquet", "reports/statistics.json"):
        write(made)
    # An import repeated: another run, the same encoder.
    write("models/encoders/teacher/run.json")
    write("models/encoders/published/run.json")
    assert not {name for name in stale() if name.startswith("finetune")}
    write("models/encoders/gfm/config.json")
    assert {name for name in stale() if name.startswith("finetune")} == {
        "finetune@scenes-gfm",
        "finetune@buildings-gfm",
        "finetune@change-gfm",
    }


def test_looking_for_shifted_copies_has_the_tasks_indexed_again(workspace: Path) -> None:
    edit(splits={"find_shifted": True})
    assert stale() == {"index", "split"}


def test_naming_places_of_the_split_reads_no_imagery_again(workspace: Path) -> None:
    edit(splits={"val_places": ["ground-0.3km-50848-20435"]})
    assert stale() == {"split"}
    edit(splits={"val_share": 0.1})
    assert stale() == {"split", "validate"}


def test_what_is_said_of_a_task_trains_nothing_again(workspace: Path) -> None:
    edit(evaluate={"too_small": {"change": "two cities"}, "geobench2": {"scenes": {"dataset": "so2sat"}}})
    assert stale() == {"evaluate"}


def test_another_encoder_of_the_same_name_is_adapted_again(workspace: Path) -> None:
    write("models/encoders/published/config.json")
    found = {name for name in stale() if name.startswith("finetune")}
    assert found == {"finetune@scenes-published", "finetune@buildings-published", "finetune@change-published"}


def test_a_task_trained_otherwise_is_trained_again_alone(workspace: Path) -> None:
    tasks = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["tasks"]
    tasks["change"] |= {"finetune": {"lr": 0.5}}
    edit(tasks=tasks)
    models = ("random", "teacher", "published", "gfm")
    assert stale() == {"index", "evaluate", *(f"finetune@change-{model}" for model in models)}
