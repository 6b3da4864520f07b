"""A fabricated working folder: what the stages before `gfm evaluate` leave behind, with scores chosen by the test.

`store` is a registry of fabricated versions, with the runs and pipelines behind them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from gfm.params import Params, Tracking
from gfm.tracking.carbon import Energy
from gfm.tracking.registry import version_tags
from gfm.tracking.runs import child_run, finish_pipeline
from gfm.tracking.scored import scored_tags
from gfm.tracking.store import _create_database, import_mlflow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
METRICS = {"classification": "accuracy", "multilabel": "map_micro", "segmentation": "iou", "change": "f1"}

# Test scores by task and model, one value a seed.
SCORES = {
    "scenes": {"random": (0.41, 0.44, 0.42), "teacher": (0.80, 0.82, 0.81), "gfm": (0.86, 0.87, 0.88)},
    "buildings": {"random": (0.52, 0.55, 0.50), "teacher": (0.61, 0.63, 0.62), "gfm": (0.66, 0.65, 0.67)},
    "change": {"random": (0.21, 0.25, 0.18), "teacher": (0.35, 0.33, 0.36), "gfm": (0.41, 0.38, 0.43)},
}


def make_params(**changes: Any) -> Params:
    """Three tasks x three models, nothing tracked; `changes` replace top-level sections."""
    finetune = {"seeds": [0, 1, 2]}
    shares = {"val_share": 0.2, "test_share": 0.3}
    raw: dict[str, Any] = {
        "geopile": {
            "sources": {
                "naip": {"format": "scenes", "root": "naip", "licence": "public domain"},
                "patternnet": {"format": "class-folders", "root": "PatternNet", "licence": "research <only>"},
            }
        },
        "teacher": {"kind": "supervised", "architecture": {}, "sources": ["patternnet"]},
        "pretrain": {"gfm": {"recipe": "gfm"}},
        "tasks": {
            "scenes": {
                "kind": "classification",
                "data": {"format": "class-folders", "root": "ucm", "split": shares},
                "finetune": finetune,
            },
            "buildings": {
                "kind": "segmentation",
                "data": {"format": "image-masks", "root": "whu", "split": shares},
                "finetune": finetune,
            },
            "change": {
                "kind": "change",
                "data": {"format": "oscd", "root": "oscd", "split": shares},
                "finetune": finetune,
            },
        },
        "evaluate": {} if "tasks" in changes else {"too_small": {"change": "two test cities"}},
        "tracking": {"uri": "none", "experiment": "fabricated"},
        "carbon": {"intensity_kg_per_kwh": 0.4},  # as the fabricated runs recorded it
    }
    return Params.model_validate(raw | changes)


class Workspace:
    """Writes the files of the earlier stages below the working folder."""

    def __init__(self, params: Params, picture_px: int = 16) -> None:
        self.params = params
        self.picture_px = picture_px  # side of one cell of the contact sheets

    def write_all(self) -> None:
        self.write_data()
        for name, kg in (("teacher", 0.0009), *((name, 0.0031) for name in self.params.pretrain)):
            self.write_encoder(name, energy=make_energy(kg))
        self.write_encoder("random", energy=None)
        for task in self.params.tasks:
            for model in self.params.models:
                self.write_run(task, model, SCORES.get(task, SCORES["scenes"]).get(model, (0.5, 0.55, 0.6)))

    def write_data(self) -> None:
        names = list(self.params.geopile.sources)
        dropped = {"low entropy": 4, "duplicate": 11}
        counts = {"met": 320, "quarantined": 2, "images": 318, "dropped": dropped, "kept": 303}
        write_json(
            "data/geopile/summary.json",
            {"sources": dict.fromkeys(names, counts), "bands": ["R", "G", "B"], "tile_px": 128},
        )
        reasons = [(name, f"{name}/broken_{i}.jpg", "truncated <after> 812 bytes") for name in names for i in range(2)]
        write_csv("data/geopile/quarantine.csv", ["source", "file", "reason"], reasons)
        write_csv("data/geopile/dropped.csv", ["source", "id", "reason", "kept"], [])
        split = ["train"] * 280 + ["val"] * 20 + ["leak"] * 3
        table = pd.DataFrame({"id": [f"i{i}" for i in range(303)], "source": "naip", "place": "p", "split": split})
        Path("data/splits").mkdir(parents=True, exist_ok=True)
        table.to_parquet("data/splits/collection.parquet")
        leaks = [("i300", "scenes", "s1", "test", "pixels"), ("i301", "scenes", "s2", "test", "looks")]
        leaks += [("i302", "change", "c1", "val", "footprint"), ("i302", "change", "c2", "val", "footprint")]
        write_csv("data/splits/leaks.csv", ["id", "task", "sample", "split", "how"], leaks)
        write_json("data/splits/summary.json", {"train": 280, "val": 20, "leak": 3})
        for name, task in self.params.tasks.items():
            record = {
                "kind": task.kind,
                "classes": ["no", "yes"],
                "counts": {"train": 120, "val": 30, "test": 45},
                "places": {"train": ["a", "b"], "val": ["c"], "test": ["vega & co", "altair"]},
                "absent": {"train": [], "val": ["yes"] if name == "change" else [], "test": []},
                "duplicates": {"train": 2, "val": 0},
                "overlaps": {"train": 1, "val": 0},
                "near_duplicates": {"train": 3, "val": 1, "pairs": []},
                "quarantined": 1 if name == "change" else 0,
            }
            write_json(f"data/tasks/{name}.json", record)
        write_csv("data/tasks/quarantine.csv", ["task", "file", "reason"], [("change", "oscd/x.tif", "no mask")])
        checks = [
            {"suite": "manifest", "expectation": f"e{i}", "severity": "critical", "success": i != 7} for i in range(8)
        ]
        validation = {
            "success": True,
            "critical": [],
            "warnings": ["manifest: gsd_m is missing for 12 %"],
            "checks": checks,
        }
        write_json("reports/validation.json", validation)

    def write_encoder(
        self,
        name: str,
        energy: dict[str, Any] | None,
        provenance: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        folder = Path("models/encoders") / name
        pretrained = name in self.params.pretrain
        origin = "random" if name == "random" else "pretrained" if pretrained else "supervised"
        if self.params.teacher.kind == "timm" and name == "teacher":
            origin = "imported"
        write_json(folder / "config.json", {"architecture": "swin", "num_classes": 0, "gfm": {"origin": origin}})
        record = {
            "name": name,
            "kind": origin,
            "seed": 0,
            "seconds": 70.0,
            "samples": 2800,
            "run_id": None,
            "metrics": {},
            "settings": settings,
        }
        write_json(folder / "run.json", record | {"provenance": provenance or make_provenance(0), "energy": energy})
        if name == "random":
            return
        steps = np.arange(1, 11)
        columns = {"epoch": steps, "step": steps * 9, "train_loss": 1 / steps, "val_loss": 1.1 / steps, "lr": 1e-3}
        pd.DataFrame(columns).to_csv(folder / "history.csv", index=False)
        if pretrained:
            picture(folder / "reconstructions.png", 6, self.picture_px)

    def write_run(
        self,
        task: str,
        model: str,
        scores: Sequence[float],
        *,
        metric: str | None = None,
        seeds: Sequence[int] | None = None,
        energy: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        folder = Path("models/tasks") / task / model
        metric = metric or METRICS[self.params.tasks[task].kind]
        seeds = list(seeds if seeds is not None else range(len(scores)))
        rows = []
        for seed, score in zip(seeds, scores, strict=True):
            # A second metric stands first, so that whoever takes the first row for the primary one is found out.
            rows += [(model, task, "precision", 0.9, seed, "test"), (model, task, metric, score, seed, "test")]
            rows.append((model, task, metric, score + 0.02, seed, "val"))
        write_csv(folder / "scores.csv", ["model", "task", "metric", "score", "seed", "split"], rows)
        history = [
            (seed, epoch, epoch * 6, 1.2 * 0.8**epoch + 0.01 * seed, score * (1 - 0.6**epoch))
            for seed, score in zip(seeds, scores, strict=True)
            for epoch in range(1, 9)
        ]
        write_csv(folder / "history.csv", ["seed", "epoch", "step", "train_loss", "val_score"], history)
        record = {
            "task": task,
            "kind": self.params.tasks[task].kind,
            "model": model,
            "mode": self.params.tasks[task].finetune.mode,
            "seeds": seeds,
            "seconds": 14.0,
            "samples": 1900,
            "primary_metric": metric,
            "parameters": 1_200_000,
            "provenance": provenance or make_provenance(seeds),
            "energy": energy if energy is not None else make_energy(0.0004),
            "index": f"{task}-index",
            "settings": self.params.tasks[task].model_dump(mode="json"),
            "run_id": None,
            "quarantined": 0,
        }
        write_json(folder / "run.json", record)
        picture(folder / "predictions.png", 5 if task == "change" else 4, self.picture_px)


def make_energy(kg: float | None) -> dict[str, Any]:
    """The `energy` of a run.json; None: not measured."""
    return {
        "kwh": None if kg is None else kg / 0.4,
        "kg_co2eq": kg,
        "seconds": 14.0,
        "method": "not measured: codecarbon is not installed" if kg is None else "codecarbon 3.3.2: CPU by its load",
        "power_source": "none" if kg is None else "estimated",
        "country": "USA",
        "intensity_kg_per_kwh": None if kg is None else 0.4,
        "intensity_source": "" if kg is None else "stated in carbon.intensity_kg_per_kwh",
    }


def make_provenance(seed: Any, commit: str | None = COMMIT, dirty: bool = False) -> dict[str, Any]:
    """The `provenance` of a run.json."""
    return {
        "gfm": "0.1.0",
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "python": "3.11.9",
        "torch": "2.15.0",
        "timm": "1.0.31",
        "lightning": "2.6.6",
        "hardware": {"cpu": "Some CPU @ 2.20GHz", "cores": 4, "gpu": []},
        "data": {"dvc": "a" * 32 + ".dir", "manifest": "b" * 32, "splits": "c" * 32},
    }


def picture(path: Path, columns: int, side: int, rows: int = 4) -> None:
    """A contact sheet of noise over gradients, as incompressible as imagery."""
    random = np.random.default_rng(columns)
    y, x = np.mgrid[0 : rows * side, 0 : columns * side]
    pixels = np.stack([x / 4 % 255, y / 3 % 255, (x + y) / 5 % 255], axis=-1) + random.normal(0, 12, (*x.shape, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def write_json(path: str | Path, content: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def write_csv(path: str | Path, columns: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A complete fabricated folder, made the working folder."""
    monkeypatch.chdir(tmp_path)
    made = Workspace(make_params())
    made.write_all()
    return made


class Fabricate:
    """`fabricate()` fills the current folder; its parts make single records."""

    params = staticmethod(make_params)
    energy = staticmethod(make_energy)
    provenance = staticmethod(make_provenance)
    picture = staticmethod(picture)

    def workspace(self, params: Params) -> Workspace:
        """A workspace of these parameters, with params.yaml and nothing else yet."""
        text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
        Path("params.yaml").write_text(text, encoding="utf-8")
        return Workspace(params)

    def __call__(self) -> Workspace:
        made = Workspace(make_params())
        made.write_all()
        return made


@pytest.fixture(scope="session")
def fabricate() -> Fabricate:
    return Fabricate()


MODEL = "gfm-encoder"
TEACHER = {"scenes": [0.80, 0.82, 0.81, 0.79, 0.83], "buildings": [0.60, 0.62, 0.61, 0.63, 0.59]}
CARD = {
    "architecture": "swin",
    "gfm": {
        "origin": "pretrained",
        "bands": ["R", "G", "B"],
        "licence": "Apache-2.0",
        "parents": ["teacher"],
        "provenance": {
            "commit": "c" * 40,
            "dirty": False,
            "seed": 3,
            "data": {"dvc": "d1.dir", "manifest": "m1", "splits": "s1"},
        },
        "energy": {"kwh": 0.25, "kg_co2eq": 0.1, "method": "by the test"},
    },
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take longer to make than all else."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    import_mlflow()
    _create_database(f"sqlite:///{path}", path)
    return path


class Registered:
    """Pretrainings, versions and scores, as the stages record them, in the working folder."""

    name = MODEL

    def __init__(self, params: Params) -> None:
        self.params = params
        self.client = import_mlflow().MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
        self.teacher = self.run("teacher", "teacher")
        write_json("models/encoders/teacher/config.json", {"gfm": {"origin": "supervised"}})
        write_json("models/encoders/teacher/run.json", {"run_id": self.teacher})
        self.client.create_registered_model(MODEL)

    def run(self, name: str, kind: str, **tags: str) -> str:
        with child_run(self.params, name, kind, {"epochs": 6}, seed=3) as run:
            run.energy(Energy(0.25, 0.1, 9.0, "by the test", "estimated", "FRA", 0.4, "stated"))
            run.tags(tags)
        assert run.run_id is not None
        return run.run_id

    def version(self, without: str = "", **changes: str) -> str:
        """A new version, the challenger, with its tags but one, or with others."""
        run_id = self.run("pretrain gfm", "pretrain")
        tags = version_tags(self.params, run_id, "", Path("models/encoders/gfm"), CARD) | changes
        tags.pop(without, None)
        made = self.client.create_model_version(MODEL, source=str(Path.cwd()), run_id=run_id, tags=tags)
        self.client.set_registered_model_alias(MODEL, "challenger", made.version)
        return str(made.version)

    def score(self, number: str, scores: dict[str, list[float]], **changes: Any) -> str | None:
        """A pipeline that ends with results of a version beside the teacher's."""
        run_id = self.client.get_model_version(MODEL, number).run_id
        ground = {"metric": "accuracy", "index": "i1", "settings": "t1"} | changes.pop("ground", {})
        rows = [
            (model, task, ground["metric"], score, seed)
            for model, own in (("teacher", TEACHER), ("gfm", scores))
            for task in scores
            for seed, score in enumerate(own[task][: len(scores[task])])
        ]
        Path("reports").mkdir(exist_ok=True)
        table = pd.DataFrame(rows, columns=["model", "task", "metric", "score", "seed"])
        table.to_csv("reports/results.csv", index=False)
        write_json("reports/arp.json", {"tasks": dict.fromkeys(scores, ground)})
        tags = {"validation": "passed", "validation.manifest": "m1", "validation.splits": "s1"} | changes
        files = [Path("reports/results.csv"), Path("reports/arp.json")]
        return finish_pipeline(self.params, files, {}, {**tags, **scored_tags({"gfm": run_id})})

    def scored(self, scores: dict[str, list[float]]) -> str:
        number = self.version()
        self.score(number, scores)
        return number

    @property
    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(MODEL).aliases
        return {alias: str(number) for alias, number in found.items()}

    def tags(self, number: str) -> dict[str, str]:
        return dict(self.client.get_model_version(MODEL, number).tags)

    def approvals(self, number: str) -> list[dict[str, Any]]:
        tags = self.tags(number)
        return [json.loads(tags[key]) for key in sorted(tags) if key.startswith("approval.")]


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registered:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GFM_PIPELINE_RUN", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    evaluate = {"bootstrap": 300, "too_small": {"change": "two test cities"}}
    params = make_params(tracking=Tracking().model_dump(), evaluate=evaluate)
    text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return Registered(params)
