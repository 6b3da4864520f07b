"""Intervals over seeds: paired, reproducible, and absent where they would pretend."""

from __future__ import annotations

import pandas as pd

from gfm.evaluation.bootstrap import Intervals, bootstrap_intervals

Scores = dict[str, dict[str, dict[int, float]]]  # task -> model -> seed -> score


def intervals(scores: Scores, seed: int = 0, resamples: int = 500) -> Intervals:
    rows = [
        (model, task, "f1", score, number)
        for task, models in scores.items()
        for model, by_seed in models.items()
        for number, score in by_seed.items()
    ]
    table = pd.DataFrame(rows, columns=["model", "task", "metric", "score", "seed"])
    return bootstrap_intervals(table, "base", resamples=resamples, confidence=0.95, seed=seed)


def seeds(*scores: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(scores, start=first))


def test_what_a_seed_does_to_both_models_cancels() -> None:
    # Each seed moves both by the same factor: model over baseline is 1.1 with every seed.
    found = intervals({"t": {"base": seeds(0.2, 0.5, 0.8), "mine": seeds(0.22, 0.55, 0.88)}}).arp["mine"]
    assert found is not None
    assert abs(found.low - 10) < 1e-6
    assert abs(found.high - 10) < 1e-6


def test_seeds_that_differ_between_models_are_resampled_apart() -> None:
    found = intervals({"t": {"base": seeds(0.2, 0.5, 0.8), "mine": seeds(0.22, 0.55, 0.88, first=10)}}).arp["mine"]
    assert found is not None
    assert found.low < 0 < 20 < found.high


def test_the_baseline_against_itself_is_zero_without_spread() -> None:
    found = intervals({"t": {"base": seeds(0.2, 0.5, 0.8), "mine": seeds(0.3, 0.3, 0.4)}}).arp["base"]
    assert found is not None
    assert (found.low, found.high) == (0, 0)


def test_one_seed_gives_no_interval_and_says_so() -> None:
    found = intervals({"t": {"base": seeds(0.5), "mine": seeds(0.6)}})
    assert found.arp == {"base": None, "mine": None}
    assert found.scores["t", "mine"] is None
    assert found.reasons["mine"] == "one seed on t"


def test_one_seed_on_one_task_is_enough_to_have_no_arp_interval() -> None:
    scores: Scores = {
        "a": {"base": seeds(0.5, 0.6), "mine": seeds(0.6, 0.7)},
        "b": {"base": seeds(0.5, 0.6), "mine": seeds(0.6)},
    }
    found = intervals(scores)
    assert found.arp["mine"] is None
    assert found.scores["a", "mine"] is not None
    assert found.reasons == {"mine": "one seed on b"}


def test_a_baseline_with_one_seed_leaves_no_model_an_interval() -> None:
    found = intervals({"t": {"base": seeds(0.5), "mine": seeds(0.6, 0.7)}})
    assert found.arp["mine"] is None
    assert found.reasons["mine"] == "base: one seed on t"


def test_a_baseline_that_fails_with_one_seed_gives_no_infinite_interval() -> None:
    found = intervals({"t": {"base": seeds(0.0, 0.4), "mine": seeds(0.3, 0.4)}})
    assert found.arp["mine"] is None
    assert "base scores zero with some seed on t" in found.reasons["mine"]


def test_the_same_table_and_seed_give_the_same_interval() -> None:
    scores: Scores = {"t": {"base": seeds(0.2, 0.5, 0.8), "mine": seeds(0.9, 0.3, 0.4)}}
    assert intervals(scores, seed=3) == intervals(scores, seed=3)
    assert intervals(scores, seed=3) != intervals(scores, seed=4)


def test_the_interval_of_a_mean_lies_within_its_scores() -> None:
    found = intervals({"t": {"base": seeds(0.2, 0.5, 0.8), "mine": seeds(0.1, 0.3, 0.7)}}).scores["t", "mine"]
    assert found is not None
    assert 0.1 <= found.low < 0.3667 < found.high <= 0.7
