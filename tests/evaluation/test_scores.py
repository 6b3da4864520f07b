"""Reading what fine-tuning left: nothing missing, nothing guessed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gfm.errors import DataError
from gfm.evaluation.scores import primary_metrics, primary_only, read_runs, results_table


def test_the_table_has_the_test_scores_with_the_primary_metric_first(workspace: Any) -> None:
    runs = read_runs(workspace.params)
    table = results_table(runs)
    assert list(table.columns) == ["model", "task", "metric", "score", "seed", "mode", "dataset"]
    assert len(table) == 3 * 3 * 3 * 2  # tasks x models x seeds x metrics, test split only
    assert table[table["task"] == "scenes"]["metric"].iloc[0] == "accuracy"
    primary = primary_only(table, primary_metrics(runs))
    assert set(primary["metric"]) == {"accuracy", "iou", "f1"}
    gfm = primary[(primary["model"] == "gfm") & (primary["task"] == "scenes")]
    assert gfm["score"].tolist() == [0.86, 0.87, 0.88]  # not the better validation scores


def test_a_missing_run_is_named_with_the_command_that_makes_it(workspace: Any) -> None:
    shutil.rmtree("models/tasks/buildings/gfm")
    with pytest.raises(
        DataError, match=r"models/tasks/buildings/gfm/run\.json: no such file.*`dvc repro finetune@buildings-gfm`"
    ):
        read_runs(workspace.params)


def test_runs_of_models_that_are_not_compared_are_left_out(workspace: Any) -> None:
    workspace.write_run("scenes", "gfm-old", (0.1,))
    assert set(results_table(read_runs(workspace.params))["model"]) == {"random", "teacher", "gfm"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a table of scores"),
        ("model,task\na,b\n", "lacks the columns metric, score, seed, split"),
        ("model,task,metric,score,seed,split\ngfm,scenes,accuracy,0.5,0,val\n", "has no test score of accuracy"),
        ("model,task,metric,score,seed,split\ngfm,scenes,accuracy,nan,0,test\n", "is not a number"),
        ("model,task,metric,score,seed,split\ngfm,scenes,accuracy,good,0,test\n", "scores that are not numbers"),
        (
            "model,task,metric,score,seed,split\ngfm,scenes,accuracy,0.5,0,test\ngfm,scenes,accuracy,0.6,0,test\n",
            "two test scores of accuracy for one seed",
        ),
    ],
)
def test_scores_that_cannot_be_used_are_refused_by_file(workspace: Any, text: str, expected: str) -> None:
    Path("models/tasks/scenes/gfm/scores.csv").write_text(text)
    with pytest.raises(DataError, match=expected) as caught:
        read_runs(workspace.params)
    assert str(caught.value).startswith("models/tasks/scenes/gfm/scores.csv: ")
    assert "dvc repro -f finetune@scenes-gfm" in str(caught.value)


def test_models_of_one_task_judged_by_different_metrics_are_refused(workspace: Any) -> None:
    path = Path("models/tasks/scenes/gfm/run.json")
    path.write_text(path.read_text().replace('"accuracy"', '"precision"'))
    with pytest.raises(DataError, match="scored by precision, but random by accuracy"):
        read_runs(workspace.params)


def test_a_broken_record_is_named(workspace: Any) -> None:
    Path("models/tasks/scenes/gfm/run.json").write_text("{")
    with pytest.raises(DataError, match=r"scenes/gfm/run\.json: not valid JSON"):
        read_runs(workspace.params)


def test_errors_stay_out_of_the_table_that_models_are_compared_by(workspace: Any) -> None:
    path = Path("models/tasks/scenes/gfm/scores.csv")
    path.write_text(path.read_text() + "gfm,scenes,rmse,12.5,0,test\ngfm,scenes,mae,9.5,0,test\n")
    assert set(results_table(read_runs(workspace.params))["metric"]) == {"accuracy", "iou", "f1", "precision"}
