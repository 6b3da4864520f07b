"""GEO-Bench-2 scores: the published board comes out, and what would mislead is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from gfm.evaluation.geobench2 import (
    BIOMASSTERS_STD,
    DATASETS,
    GROUPS,
    interquartile_mean,
    read_normaliser,
    read_submission,
    score_groups,
)

BOARD = Path(__file__).parents[2] / ".." / "shared" / "leaderboard"
RGB = GROUPS["RGB/NIR"]


def write(folder: Path, rows: list[tuple[Any, ...]], ranges: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """A submission of (backbone, dataset, metric, score, seed) and a normaliser."""
    csv, json_file = folder / "results.csv", folder / "normaliser.json"
    lines = ["backbone,dataset,Metric,test metric,Seed", *(",".join(map(str, row)) for row in rows)]
    csv.write_text("\n".join(lines))
    json_file.write_text(json.dumps(ranges if ranges is not None else {name: [0.2, 0.6] for name in DATASETS}))
    return csv, json_file


def rgb(model: str = "m", scores: tuple[float, ...] = (0.3, 0.4, 0.5)) -> list[tuple[Any, ...]]:
    return [(model, name, "mIoU", score, seed) for name in RGB for seed, score in enumerate(scores)]


@pytest.mark.skipif(not BOARD.exists(), reason="needs ../shared/leaderboard")
def test_the_published_board_comes_out(tmp_path, gfm) -> None:
    expected = json.loads((BOARD / "expected.json").read_text())
    for submission, models in expected.items():
        out = tmp_path / f"{submission}.json"
        csv = BOARD / submission / "results_and_parameters.csv"
        assert gfm("leaderboard", csv, "--normalizer", BOARD / "normalizer.json", "--json", out)[0] == 0
        found = json.loads(out.read_text())
        assert {model: set(groups) for model, groups in found.items()} == {m: set(g) for m, g in models.items()}
        for model, groups in models.items():
            for group, score in groups.items():
                own = found[model][group]
                assert own["mean"] == pytest.approx(score["mean"], abs=1e-6)
                assert own["sd"] == pytest.approx(score["sd"], abs=1e-6)
                assert own["low"] < own["mean"] < own["high"]


def test_both_submissions_at_once_are_told_apart_by_their_folders(tmp_path, gfm) -> None:
    out = tmp_path / "out.json"
    for name, model in (("first", "other"), ("second", "mine")):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, rgb() + rgb(model))
    files = [tmp_path / name / "results.csv" for name in ("first", "second")]
    words = (*files, "--normalizer", tmp_path / "first/normaliser.json", "--json", out)
    assert gfm("leaderboard", *words)[0] == 0
    assert list(json.loads(out.read_text())) == ["m (first)", "other", "m (second)", "mine"]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60))
def test_the_interquartile_mean_is_scipys(values: list[float]) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(trim_mean(values, 0.25), abs=1e-12)


def test_scores_are_normalised_unclipped_and_errors_turned_into_scores(tmp_path) -> None:
    rows = [("m", "flair2", "mIoU", 0.8, 0), ("m", "biomassters", "RMSE", 0.5, 0), ("m", "fotw", "mIoU", 0.1, 0)]
    csv, ranges = write(tmp_path, rows)
    values = read_submission(csv, read_normaliser(ranges))["normalised"]
    assert values.tolist() == pytest.approx([1.5, (1 - 0.5 * BIOMASSTERS_STD - 0.2) / 0.4, -0.25])


def test_a_group_that_lacks_a_data_set_has_no_score_and_moves_no_other(tmp_path) -> None:
    csv, ranges = write(tmp_path, rgb("a") + rgb("b"))
    alone = score_groups(read_submission(csv, read_normaliser(ranges)))
    csv, ranges = write(tmp_path, rgb("a") + rgb("b") + [("aa", "flair2", "mIoU", 0.5, 0)])
    board = score_groups(read_submission(csv, read_normaliser(ranges)))
    assert board.scores["aa"] == {} and set(board.lacking["aa"]["RGB/NIR"]) == set(RGB) - {"flair2"}
    assert board.scores["b"] == alone.scores["b"] and list(board.scores["b"]) == ["RGB/NIR"]


def test_equal_scores_have_no_spread(tmp_path) -> None:
    csv, ranges = write(tmp_path, rgb(scores=(0.4, 0.4)))
    score = score_groups(read_submission(csv, read_normaliser(ranges))).scores["m"]["RGB/NIR"]
    assert (score.mean, score.low, score.high) == pytest.approx((0.5, 0.5, 0.5)) and score.sd == pytest.approx(0)


@pytest.mark.parametrize(
    ("rows", "ranges", "told"),
    [
        ([("m", "imagenet", "mIoU", 0.5, 0)], None, "imagenet is no data set of GEO-Bench-2; those are benv2, "),
        (rgb(), {"fotw": [0, 1]}, "the normaliser has no flair2"),
        (rgb(), {"fotw": [1, 0]}, "fotw = [1, 0]: the smaller number first"),
        (rgb(), ["fotw"], "must map data sets to [min, max]"),
        (rgb(scores=("broken",)), None, "line 2: test metric = 'broken' is no finite number"),
        (
            rgb()[:3],
            None,
            "no model has results on all data sets of any group; m is nearest to Under 10m Resolution and lacks ",
        ),
        ([], None, "has no rows"),
        ([*rgb(), rgb()[0]], None, "m has two scores on flair2 with seed 0; leave one out"),
        (
            [*rgb(), ("m", "flair2", "accuracy", 0.5, 9)],
            None,
            "flair2 is scored by mIoU and by accuracy",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    tmp_path, gfm, rows: list[tuple[Any, ...]], ranges: Any, told: str
) -> None:
    csv, normaliser = write(tmp_path, rows, ranges)
    code, out, err = gfm("leaderboard", csv, "--normalizer", normaliser, "--json", tmp_path / "out.json")
    assert (code, out) == (2, "") and told in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_frozen_and_full_runs_in_one_file_are_refused(tmp_path, gfm) -> None:
    csv, normaliser = write(tmp_path, rgb())
    lines = csv.read_text().splitlines()
    marked = [f"{line},{'frozen' if n % 2 else 'full_ft'}" for n, line in enumerate(lines[1:])]
    csv.write_text("\n".join([f"{lines[0]},frozen_or_full_ft", *marked]))
    code, _, err = gfm("leaderboard", csv, "--normalizer", normaliser)
    assert code == 2 and "frozen_or_full_ft is full_ft and frozen, boards of their own; split the file" in err


def test_boards_in_several_files_are_not_ranked_together(tmp_path, gfm) -> None:
    files = []
    for kind in ("frozen", "full_ft"):
        (tmp_path / kind).mkdir()
        csv, normaliser = write(tmp_path / kind, rgb(kind))
        head, *lines = csv.read_text().splitlines()
        csv.write_text("\n".join([f"{head},frozen_or_full_ft", *(f"{line},{kind}" for line in lines)]))
        files.append(csv)
    code, _, err = gfm("leaderboard", *files, "--normalizer", normaliser)
    assert code == 2 and "boards of their own; give them one at a time" in err


def test_single_and_uneven_scores_are_said_to_be_so(tmp_path, gfm) -> None:
    rows = [*rgb("even"), *rgb("single", (0.4,)), *rgb("uneven")[:-1]]
    csv, normaliser = write(tmp_path, rows)
    code, out, _ = gfm("leaderboard", csv, "--normalizer", normaliser)
    assert code == 0
    assert "single: has data sets with one score only, whose spread is not known: its ± is too small" in out
    assert "uneven: has 2 to 3 scores a data set, and those with more weigh more" in out
    assert "even: has 3" not in out.replace("uneven", "")
