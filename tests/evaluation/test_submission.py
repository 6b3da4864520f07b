"""Our results as a submission to GEO-Bench-2: the published files' columns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gfm.evaluation.geobench2 import DATASETS
from gfm.evaluation.submission import COLUMNS, INFO, RESULTS
from gfm.params import GEOBENCH2_KINDS

PUBLISHED = Path(__file__).parents[2] / ".." / "shared" / "leaderboard"
SPLIT = {"val_share": 0.2, "test_share": 0.3}
DATA = {
    "classification": {"format": "class-folders", "root": "c", "split": SPLIT},
    "multilabel": {"format": "bigearthnet", "root": "m", "split": SPLIT},
    "segmentation": {"format": "image-masks", "root": "s", "split": SPLIT},
    "regression": {"format": "image-targets", "root": "r", "split": SPLIT},
}
OURS = {"classification": "accuracy", "multilabel": "macro_f1", "segmentation": "miou", "regression": "rmse"}


def _task(dataset: str, mode: str = "full") -> dict[str, Any]:
    """A task, with what `_sections` moves to evaluate.geobench2."""
    kind = GEOBENCH2_KINDS[dataset]
    scale = {"rmse_scale": 0.02} if kind == "regression" else {}
    finetune = {"seeds": [0, 1], "mode": mode, "lr": 0.002}
    return {"kind": kind, "data": DATA[kind], "finetune": finetune, "geobench2": {"dataset": dataset, **scale}}


def _sections(tasks: dict[str, Any]) -> dict[str, Any]:
    mapped = {name: task["geobench2"] for name, task in tasks.items() if "geobench2" in task}
    plain = {name: {key: task[key] for key in task if key != "geobench2"} for name, task in tasks.items()}
    return {"tasks": plain, "evaluate": {"geobench2": mapped}}


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fabricate: Any, gfm: Any) -> Any:
    """params.yaml and fabricated runs of these tasks; then `gfm submission sent …`: exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def make(tasks: dict[str, Any], metric: str | None = None) -> Any:
        made = fabricate.workspace(fabricate.params(**_sections(tasks)))
        for name, task in made.params.tasks.items():
            for model in made.params.models:
                made.write_run(name, model, (0.5, 0.6), metric=metric or OURS[task.kind])

        def submit(*arguments: str) -> tuple[int, str]:
            code, out, err = gfm("submission", "sent", *arguments)
            return code, out + err

        return submit

    return make


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/leaderboard")
def test_columns_and_types_are_those_of_the_published_submissions(boards: Any) -> None:
    code, printed = boards({dataset: _task(dataset) for dataset in ("benv2", "pastis", "so2sat", "biomassters")})()
    assert code == 0, printed
    ours = pd.read_csv(Path("sent") / RESULTS, keep_default_na=False)
    for path in sorted(PUBLISHED.glob(f"*/{RESULTS}")):
        theirs = pd.read_csv(path, keep_default_na=False)
        assert list(ours.columns) == list(theirs.columns) == list(COLUMNS)
        metrics = dict(zip(theirs["dataset"], theirs["Metric"], strict=True))
        for dataset, metric in zip(ours["dataset"], ours["Metric"], strict=True):
            assert metrics[dataset] == metric
        for column in ("test metric", "Seed", "index", "batch_size", "lr", "n_trials", "data_percentages"):
            assert ours[column].dtype == theirs[column].dtype, column
        keys = json.loads((path.parent / INFO).read_text())
        own = json.loads((Path("sent") / INFO).read_text())
        assert set(keys) <= set(own) and set(keys["New model info"][0]) == set(own["New model info"][0])


def test_the_leaderboard_accepts_it_and_scores_the_complete_groups(boards: Any, gfm: Any) -> None:
    temporal = ("kuro_siwo", "pastis", "biomassters", "dynamic_earthnet")
    code, printed = boards({dataset: _task(dataset) for dataset in temporal})()
    assert code == 0 and "the board's protocol asks for 5 seeds a data set; there are as few as 2" in printed
    Path("normalizer.json").write_text(json.dumps({dataset: [0.1, 0.9] for dataset in DATASETS}))
    code, _, printed = gfm("leaderboard", f"sent/{RESULTS}", "--normalizer", "normalizer.json", "--json", "board.json")
    assert code == 0, printed
    scores = json.loads(Path("board.json").read_text())
    assert set(scores) == {"random", "teacher", "gfm"} and set(scores["gfm"]) == {"Multi-Temporal"}
    sent = pd.read_csv(Path("sent") / RESULTS)
    assert sent[sent["dataset"] == "biomassters"]["test metric"].iloc[0] == pytest.approx(0.5 * 0.02)


def test_each_board_takes_its_own_modes(boards: Any) -> None:
    submit = boards({"a": _task("so2sat"), "b": _task("forestnet", "linear"), "c": _task("pastis", "lora")})
    assert submit()[0] == 0
    assert set(pd.read_csv(Path("sent") / RESULTS)["dataset"]) == {"so2sat"}
    code, printed = submit("--board", "frozen")
    assert code == 0 and "left out, not mapped or of another board: a, c" in printed
    sent = pd.read_csv(Path("sent") / RESULTS)
    assert set(sent["dataset"]) == {"forestnet"} and set(sent["frozen_or_full_ft"]) == {"frozen"}
    code, printed = submit("--board", "half")
    assert code == 2 and "--board half: must be full or frozen" in printed


def test_what_is_no_submission_is_refused(boards: Any) -> None:
    unmapped = _task("so2sat")
    del unmapped["geobench2"]
    code, printed = boards({"scenes": unmapped})()
    assert code == 2 and "no task is mapped to a data set of GEO-Bench-2 (scenes)" in printed
    code, printed = boards({"scenes": _task("so2sat", "knn")})()
    assert code == 2 and "no mapped task is adapted for the board full, which takes full: scenes is knn" in printed
    code, printed = boards({"one": _task("so2sat"), "two": _task("so2sat")})()
    assert code == 2 and "tasks.two and tasks.one are both so2sat on the board full" in printed
    code, printed = boards({"scenes": _task("benv2")}, metric="micro_map")()
    assert code == 2 and "tasks.scenes: random has no test score of macro_f1, which benv2 is scored by" in printed
    Path("sent").mkdir()
    Path("sent/precious.txt").write_text("x")
    code, printed = boards({"scenes": _task("so2sat")})()
    assert code == 2 and "sent: holds something else than a submission" in printed


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (_task("so2sat") | {"geobench2": {"dataset": "imagenet"}}, "imagenet is no data set of GEO-Bench-2; those are"),
        (_task("so2sat") | {"geobench2": {"dataset": "nzcattle"}}, "nzcattle is a task of detection"),
        (_task("so2sat") | {"geobench2": {"dataset": "pastis"}}, "pastis is a segmentation task, this one is class"),
        (_task("biomassters") | {"geobench2": {"dataset": "biomassters"}}, "geobench2.t.rmse_scale is missing"),
        (_task("pastis") | {"positive_class": "foreground"}, "is scored by the mean over classes"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_before_anything_runs(task: Any, told: str, fabricate: Any) -> None:
    with pytest.raises(ValueError, match=told):
        fabricate.params(**_sections({"t": task}))


def test_every_data_set_of_the_board_is_known() -> None:
    assert set(GEOBENCH2_KINDS) | {"everwatch", "nzcattle", "pastis_r", "substation"} == set(DATASETS)
