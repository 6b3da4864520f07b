"""The sentence that a report opens with is never surer than the intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gfm.evaluation.assessment import assess
from gfm.evaluation.verdict import Verdict, verdict
from gfm.params import Params


@pytest.fixture
def judge(workspace: Any) -> Any:
    """Scores of models on the tasks `scenes` and `change` (declared too small) -> the verdict."""

    def judged(scenes: dict[str, list[float]], change: dict[str, list[float]] | None = None) -> Verdict:
        params: Params = workspace.params
        rows = [
            (model, task, "m", score, seed)
            for task, models in (("scenes", scenes), ("change", change or {}))
            for model, scores in models.items()
            for seed, score in enumerate(scores)
        ]
        table = pd.DataFrame(rows, columns=["model", "task", "metric", "score", "seed"])
        return verdict(assess(params, table, dict.fromkeys(table["task"].unique(), "m")))

    return judged


def test_a_clear_winner_is_named_with_its_interval(judge: Any) -> None:
    said = judge({"teacher": [0.80, 0.81, 0.82, 0.80, 0.82], "gfm": [0.88, 0.89, 0.90, 0.88, 0.90]})
    assert said.headline == "gfm beats teacher: ARP +9.88 %"
    assert said.detail.startswith("95 % interval +9.7")
    assert "seeds" not in said.line
    assert "several" not in said.line


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_few_seeds_never_show_a_win_however_clear_it_looks(judge: Any, seeds: int) -> None:
    said = judge({"teacher": [0.80, 0.81, 0.80, 0.81][:seeds], "gfm": [0.90, 0.91, 0.90, 0.91][:seeds]})
    assert said.headline.startswith(f"gfm is ahead of teacher with {seeds} seeds: ARP +12.")
    assert said.headline.endswith(" %, not conclusive")
    assert "interval over fewer than 5 seeds is too narrow to conclude from" in said.detail
    assert "beats" not in said.line


def test_few_seeds_of_the_baseline_alone_are_few(judge: Any) -> None:
    said = judge({"teacher": [0.80, 0.81], "gfm": [0.90, 0.91, 0.90, 0.91, 0.90]})
    assert said.headline.startswith("gfm is ahead of teacher with 2 to 5 seeds")


def test_few_seeds_never_show_a_loss(judge: Any) -> None:
    said = judge({"teacher": [0.80, 0.81, 0.82], "gfm": [0.70, 0.71, 0.72]})
    assert said.headline == "gfm is behind teacher with 3 seeds: ARP -12.35 %, not conclusive"
    assert "No model beats" not in said.line


def test_the_best_of_several_is_said_to_be_picked(judge: Any) -> None:
    scores = {"teacher": [0.80, 0.81], "gfm": [0.90, 0.91], "simmim": [0.3, 0.31], "random": [0.2, 0.21]}
    assert "gfm has the highest ARP of 2 models compared with teacher; picking" in judge(scores).detail
    assert "picking" in judge({model: values[:1] for model, values in scores.items()}).detail


def test_a_network_without_training_is_no_rival(judge: Any) -> None:
    scores = {"teacher": [0.80, 0.81, 0.82] * 2, "gfm": [0.79, 0.81, 0.86] * 2, "random": [0.3, 0.31, 0.3] * 2}
    said = judge(scores)
    assert said.detail.startswith("gfm has the highest ARP, ") and "picking" not in said.line and not said.caution
    ahead = judge(scores | {"random": [0.9, 0.91, 0.9] * 2})
    assert ahead.headline == "No difference shown between gfm and teacher"
    assert ahead.caution == "random, which starts without any pretraining, is ahead of it."
    assert judge({"teacher": [0.8, 0.8], "random": [0.3, 0.3]}).headline.startswith("random is behind teacher")


def test_an_interval_that_includes_zero_shows_no_difference(judge: Any) -> None:
    said = judge({"teacher": [0.80, 0.81, 0.82], "gfm": [0.79, 0.81, 0.86]})
    assert said.headline == "No difference shown between gfm and teacher"
    assert "includes 0" in said.detail


def test_when_the_baseline_wins_it_says_so(judge: Any) -> None:
    said = judge({"random": [0.3, 0.4] * 3, "teacher": [0.80, 0.82] * 3, "gfm": [0.70, 0.72] * 3})
    assert said.headline == "No model beats the baseline teacher"
    assert said.detail.startswith("The closest is gfm: ARP -12.35 %")


def test_one_seed_is_no_evidence(judge: Any) -> None:
    said = judge({"teacher": [0.80], "gfm": [0.90]})
    assert said.headline == "No difference shown between gfm and teacher"
    assert said.detail.startswith("Its ARP of +12.50 % has no interval to judge it by (")
    assert "one seed on scenes" in said.detail


def test_two_winners_whose_intervals_overlap_share_the_first_place(judge: Any) -> None:
    said = judge({"teacher": [0.5, 0.52] * 3, "gfm": [0.60, 0.64] * 3, "gfm-b": [0.61, 0.62] * 3})
    assert said.headline.startswith("gfm beats teacher")
    assert "overlaps with that of gfm-b: which of them is best is not shown" in said.detail


def test_a_win_that_rests_on_a_set_too_small_to_conclude_from_is_no_win(judge: Any) -> None:
    said = judge(
        {"teacher": [0.80, 0.81, 0.82], "gfm": [0.80, 0.82, 0.81]},
        {"teacher": [0.20, 0.21, 0.22], "gfm": [0.60, 0.61, 0.62]},
    )
    assert said.headline == "No difference shown between gfm and teacher"
    assert "rests on tasks too small to conclude from" in said.detail
    assert said.caution.startswith("Without change, too small to conclude from: ARP +0.00 %")


def test_the_baseline_alone_is_no_comparison(judge: Any) -> None:
    assert judge({"teacher": [0.8, 0.9]}).headline == "Only the baseline teacher was scored"
