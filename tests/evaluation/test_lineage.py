"""Results that are less comparable than they look are announced."""

from __future__ import annotations

from typing import Any

from gfm.evaluation.lineage import facts, warnings


def record(commit: str | None = "a" * 40, dirty: bool | None = False, manifest: str | None = "m1") -> dict[str, Any]:
    return {"commit": commit, "dirty": dirty, "hardware": {"gpu": [], "cores": 4}, "data": {"manifest": manifest}}


def test_runs_of_one_clean_commit_need_no_warning() -> None:
    assert warnings({"gfm": record(), "scenes gfm": record()}) == []


def test_results_of_different_commits_are_announced_with_who_has_which() -> None:
    (said,) = warnings({"gfm": record(), "scenes gfm": record(commit="b" * 40)})
    assert "2 different commits: aaaaaaaaaa (gfm); bbbbbbbbbb (scenes gfm)" in said


def test_uncommitted_code_is_announced() -> None:
    (said,) = warnings({"gfm": record(), "scenes gfm": record(dirty=True)})
    assert "Uncommitted changes were in the working tree of scenes gfm" in said


def test_a_run_without_a_commit_is_announced() -> None:
    assert warnings({"gfm": record(commit=None, dirty=None)}) == ["No commit is recorded for gfm."]


def test_runs_that_saw_different_data_are_announced_but_not_those_made_before_the_data() -> None:
    assert warnings({"gfm": record(), "random": record(manifest=None)}) == []
    (said,) = warnings({"gfm": record(), "scenes gfm": record(manifest="m2")})
    assert "Runs saw different data, manifest: m1 (gfm); m2 (scenes gfm)" in said


def test_a_collection_without_a_source_is_meant_to_be_another() -> None:
    ablated = record(manifest="m2") | {"data": {"manifest": "m2", "without": "naip"}}
    assert warnings({"gfm": record(), "gfm-no-naip": ablated, "scenes gfm-no-naip": ablated}) == []
    (said,) = warnings({"gfm": record(), "gfm-no-naip": ablated, "scenes gfm": record(manifest="m3")})
    assert "manifest: m1 (gfm); m3 (scenes gfm)" in said


def test_facts_that_runs_share_are_shown_once() -> None:
    found = {fact.name: fact for fact in facts({"gfm": record(), "scenes gfm": record(dirty=True)})}
    assert found["hardware.cores"].agreed
    assert found["hardware.gpu"].values == [("none", ["gfm", "scenes gfm"])]
    assert found["dirty"].values == [("no", ["gfm"]), ("yes", ["scenes gfm"])]
