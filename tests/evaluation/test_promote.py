"""A version becomes champion when it is shown to be better, and the registry is right whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gfm.errors import GfmError
from gfm.evaluation import promote as command
from gfm.evaluation.evaluate import evaluate
from gfm.evaluation.promote import promote, set_champion
from gfm.evaluation.verdict import FEW_SEEDS
from gfm.params import Promotion, Tracking
from gfm.tracking import champion
from gfm.tracking.store import TrackingError, import_mlflow

Gfm = Callable[..., tuple[int, str, str]]

MODEL = "gfm-encoder"
WEAK = {"scenes": [0.80, 0.82, 0.81, 0.79, 0.83], "buildings": [0.60, 0.62, 0.61, 0.63, 0.59]}
STRONG = {"scenes": [0.87, 0.88, 0.86, 0.87, 0.89], "buildings": [0.66, 0.67, 0.65, 0.68, 0.66]}
MIXED = {"scenes": [0.97, 0.98, 0.96, 0.97, 0.99], "buildings": [0.57, 0.58, 0.56, 0.57, 0.55]}


def test_the_first_champion_must_beat_the_baseline(store: Any, gfm: Gfm) -> None:
    number = store.scored(WEAK)
    code, out, err = gfm("promote")
    assert (code, err) == (3, "")
    assert "it is not shown to beat the baseline teacher: ARP +0.00 %" in out
    assert store.aliases == {"challenger": number}

    store.score(number, STRONG)  # later scores count, also from a pipeline that trained nothing
    code, out, _ = gfm("promote")
    assert code == 0
    assert f"{MODEL} version {number} is champion: ARP +" in out
    assert store.aliases == {"champion": number}


def test_a_better_challenger_takes_over_with_its_record_and_the_old_champion_gets_its_end(store: Any) -> None:
    old = store.scored(STRONG)
    assert promote(store.params, None, dry_run=False)
    new = store.version()
    pipeline = store.score(new, {task: [score + 0.05 for score in own] for task, own in STRONG.items()})
    assert promote(store.params, None, dry_run=False)
    assert store.aliases == {"champion": new}
    record = store.approvals(new)[0]
    assert record["gate"] == "passed" and record["over"] == f"version {old}" and record["previous"] == old
    assert 0 < record["arp"]["low"] < record["arp"]["value"] < record["arp"]["high"]
    assert record["by"] and record["scored_by"] == pipeline
    assert set(record["tasks"]) == {"scenes", "buildings"}
    assert store.tags(new)["champion.since"] == record["at"] == store.tags(old)["champion.until"]


def test_a_dry_run_says_what_would_happen_and_changes_nothing(store: Any, gfm: Gfm) -> None:
    number = store.scored(STRONG)
    code, out, _ = gfm("promote", "--dry-run")
    assert code == 0 and f"version {number} would become champion: ARP +" in out
    code, out, _ = gfm("promote", "--dry-run", "--to", number, "--reason", "x")
    assert code == 0 and "without the gate: x" in out
    assert store.aliases == {"challenger": number} and not store.approvals(number)


def refusal(store: Any, gfm: Gfm) -> str:
    """What a refused promotion prints; nothing may have changed."""
    before = store.aliases
    code, out, err = gfm("promote")
    assert (code, err) == (3, "")
    assert store.aliases == before
    assert not store.approvals(before["challenger"])
    return out


def test_a_gain_that_costs_one_task_more_than_the_margin_is_refused(store: Any, gfm: Gfm) -> None:
    store.scored(MIXED)
    out = refusal(store, gfm)
    assert "buildings: it is worse than the baseline teacher by more than promotion.margin = 2 %" in out
    assert "not shown to beat" not in out
    params = store.params.model_copy(update={"promotion": Promotion(tasks=["scenes"])})
    assert promote(params, None, dry_run=False)  # agreed otherwise


def test_few_seeds_are_refused_with_the_number_and_why(store: Any, gfm: Gfm) -> None:
    assert Promotion().min_seeds == FEW_SEEDS
    store.scored({task: scores[:3] for task, scores in STRONG.items()})
    out = refusal(store, gfm)
    assert "fewer seeds than promotion.min_seeds = 5: it has scenes 3, buildings 3; the baseline teacher has" in out
    assert "too narrow to conclude from" in out


@pytest.mark.parametrize(
    ("ground", "words"),
    [
        ({"index": "i2"}, "scenes: scored on another task index (i2) than version 1 (i1)"),
        ({"settings": "t2"}, "buildings: scored on another task settings"),
        ({"metric": "f1"}, "scenes: scored by f1, but version 1 by accuracy"),
        ({"index": None}, "scenes: no one task index is recorded for all models"),
    ],
)
def test_scores_on_another_ground_do_not_count(store: Any, gfm: Gfm, ground: dict[str, Any], words: str) -> None:
    store.scored(WEAK)
    set_champion(store.params, "1", "the first", dry_run=False)
    store.score(store.version(), STRONG, ground=ground)
    assert words in refusal(store, gfm)


def test_a_champion_that_is_scored_again_beside_the_challenger_can_be_compared(store: Any, gfm: Gfm) -> None:
    first = store.scored(WEAK)
    set_champion(store.params, first, "the first", dry_run=False)
    new = store.version()
    store.score(new, STRONG, ground={"index": "i2"})
    out = refusal(store, gfm)
    assert f"declare encoders.before = {{kind: registered, version: {first}}}, name `before` in models" in out
    store.score(first, WEAK, ground={"index": "i2"})
    assert gfm("promote")[0] == 0 and store.aliases == {"champion": new}


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"without": "git.commit"}, "its lineage has no commit"),
        ({"git.dirty": "true"}, "its code had changes that are not committed"),
        ({"without": "data.manifest"}, "its lineage has no hash of the collection's manifest"),
        ({"without": "seed"}, "its lineage has no seed"),
        ({"without": "licence"}, "its lineage has no licence of its weights"),
        ({"without": "parents"}, "its lineage has no teacher"),
        ({"without": "parents.teacher.run_id"}, "its lineage has no run of its parent teacher"),
        ({"kg_co2eq": "not measured: codecarbon is not installed"}, "its energy is not a number but `not measured:"),
        ({"without": "kg_co2eq"}, "its energy is not a number but `not recorded`"),
        ({"data.splits": "s2"}, "what was validated (splits s1) is not what it was trained on (splits s2)"),
        (
            {"data.without": "naip", "data.manifest": "m2"},
            "it was pretrained without naip, but the whole collection was",
        ),
    ],
)
def test_an_origin_that_is_not_known_is_refused(store: Any, gfm: Gfm, tags: dict[str, str], words: str) -> None:
    store.score(store.version(**tags), STRONG)
    out = refusal(store, gfm)
    assert words in out
    assert out.count("  - ") == 1


def test_a_failed_validation_and_every_other_reason_are_said_at_once(store: Any, gfm: Gfm) -> None:
    number = store.version(without="seed")
    store.score(number, {task: scores[:2] for task, scores in WEAK.items()}, validation="failed")
    out = refusal(store, gfm)
    for words in ("fewer seeds", "not shown to beat", "its data validation is `failed`", "no seed"):
        assert words in out


def test_a_task_without_scores_is_named(store: Any, gfm: Gfm) -> None:
    store.scored({"scenes": STRONG["scenes"]})
    assert "buildings: there is no score of version 1 or the baseline teacher; fine-tune" in refusal(store, gfm)


def test_the_way_back_needs_a_reason_and_leaves_one(store: Any, gfm: Gfm) -> None:
    first, second = store.scored(STRONG), store.scored(WEAK)
    assert gfm("promote", "--version", first)[0] == 0
    assert store.aliases == {"champion": first, "challenger": second}
    code, out, _ = gfm("promote", "--to", second, "--reason", "a trial")
    assert code == 0 and f"instead of version {first}, without the gate: a trial" in out
    assert store.aliases == {"champion": second}
    assert gfm("promote", "--to", first, "--reason", "clouds are seen as roofs")[0] == 0
    assert store.aliases == {"champion": first}
    assert [record["gate"] for record in store.approvals(first)] == ["passed", "none: set by hand"]
    assert store.approvals(first)[1]["reason"] == "clouds are seen as roofs"
    assert "champion.until" not in store.tags(first)
    assert store.tags(second)["champion.until"] == store.tags(first)["champion.since"]
    assert gfm("promote", "--to", first, "--reason", "again")[0] == 0  # it is already
    assert len(store.approvals(first)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "1"], "--to: give a --reason"),
        (["--to", "9", "--reason", "x"], "has no version 9; it has 1"),
        (["--version", "9"], "has no version 9; it has 1"),
        (["--version", "1", "--to", "1"], "give one of them"),
        (["--reason", "x"], "--reason is for --to"),
        (
            [],
            "version 1: no finished pipeline run of tracking.experiment has scored it; run `dvc repro -s -f evaluate`",
        ),
    ],
)
def test_what_is_missing_is_one_line_with_the_fix(store: Any, gfm: Gfm, words: list[str], message: str) -> None:
    store.version()
    code, _, err = gfm("promote", *words)
    assert code == 2 and err.count("\n") == 1
    assert message in err


def test_without_challenger_registry_or_store_it_is_said_what_to_do(store: Any, gfm: Gfm) -> None:
    assert "gfm-encoder: has no version yet" not in gfm("promote")[2]
    assert "no version is challenger; pretrain one" in gfm("promote")[2]
    store.client.delete_registered_model(MODEL)
    assert "gfm-encoder: has no version yet; `gfm pretrain NAME` registers one" in gfm("promote")[2]
    Path("mlflow.db").unlink()
    assert "tracking.uri = sqlite:///mlflow.db: no such file; run `dvc repro`" in gfm("promote")[2]
    assert not Path("mlflow.db").exists()
    untracked = store.params.model_copy(update={"tracking": Tracking(uri="none")})
    with pytest.raises(TrackingError, match=r"tracking\.uri = none: no model is registered; set it to"):
        promote(untracked, None, dry_run=False)


def test_a_champion_that_was_never_scored_is_named(store: Any, gfm: Gfm) -> None:
    old = store.version()
    set_champion(store.params, old, "the first", dry_run=False)
    store.scored(STRONG)
    code, _, err = gfm("promote")
    assert code == 2
    assert f"{MODEL} version {old}: no finished pipeline run of tracking.experiment has scored it" in err


def test_results_that_cannot_be_read_are_named(store: Any, gfm: Gfm) -> None:
    number = store.version()
    pipeline = store.score(number, STRONG)
    for file in Path("mlruns").rglob("arp.json"):
        file.write_text('{"models": {}}', encoding="utf-8")
    code, _, err = gfm("promote")
    assert code == 2
    assert f"run {pipeline}, which scored {MODEL} version {number}: its arp.json does not say what was scored" in err


def test_an_alias_that_moves_while_it_is_judged_stops_the_promotion(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store.scored(STRONG), store.scored(STRONG)
    record = command._record

    def meanwhile(*arguments: Any) -> Any:
        store.client.set_registered_model_alias(MODEL, "champion", first)
        return record(*arguments)

    monkeypatch.setattr(command, "_record", meanwhile)
    with pytest.raises(GfmError, match=f"were challenger {second} and are challenger {second}, champion {first} now"):
        promote(store.params, None, dry_run=False)
    assert store.aliases == {"champion": first, "challenger": second} and not store.approvals(second)


@pytest.mark.slow
def test_of_two_promotions_at_once_one_is_recorded(store: Any) -> None:
    number = store.scored(STRONG)
    code = "from gfm.cli import main\nimport sys\nsys.argv = ['gfm', 'promote']\nmain()"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300)[0] for process in both]
    assert 0 in {process.returncode for process in both}, told
    assert "Traceback" not in "".join(told)
    assert len(store.approvals(number)) == 1
    assert store.aliases == {"champion": number}


def test_a_registry_that_goes_away_is_one_line_and_changes_nothing(
    store: Any, gfm: Gfm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    number = store.scored(STRONG)

    def gone(*arguments: Any) -> None:
        raise MlflowException("API request to http://ann:pw@host:5000/api failed: connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(champion, "set_tag", gone)
        code, _, err = gfm("promote")
    assert code == 2 and err.count("\n") == 1
    assert "the store went away, or is full (API request to http://***@host:5000/api failed: connection refused)" in err
    assert store.aliases == {"challenger": number} and not store.approvals(number)
    assert gfm("promote")[0] == 0
    assert store.aliases == {"champion": number}


class Killed(BaseException):
    """As a signal: nothing catches it."""


@pytest.mark.parametrize("after", ["approval", "alias", "since"])
def test_a_promotion_killed_between_two_writes_is_finished_by_the_next(
    store: Any, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    old = store.scored(WEAK)
    set_champion(store.params, old, "the first", dry_run=False)
    new = store.scored(STRONG)
    write, settle = champion.set_tag, champion._settle

    def tag(registry: Any, number: str, key: str, value: str) -> None:
        write(registry, number, key, value)
        if key.startswith(after) or (after == "since" and key == champion.SINCE):
            raise Killed

    def settled(registry: Any, number: str) -> None:
        if after == "alias" and number == new:
            raise Killed
        settle(registry, number)

    with monkeypatch.context() as patch:
        patch.setattr(champion, "set_tag", tag)
        patch.setattr(champion, "_settle", settled)
        with pytest.raises(Killed):
            promote(store.params, None, dry_run=False)
    assert store.aliases["champion"] == (old if after == "approval" else new)
    assert promote(store.params, None, dry_run=False)
    assert store.aliases == {"champion": new}
    assert store.tags(new)["champion.since"] == store.tags(old)["champion.until"] == store.approvals(new)[-1]["at"]


def test_evaluate_leaves_what_a_later_promotion_needs(
    workspace: Any, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GFM_PIPELINE_RUN", raising=False)
    shutil.copy(empty_store, "mlflow.db")
    params = workspace.params.model_copy(update={"tracking": Tracking()})
    record = json.loads(Path("models/encoders/gfm/run.json").read_text(encoding="utf-8"))
    Path("models/encoders/gfm/run.json").write_text(json.dumps(record | {"run_id": "abc"}), encoding="utf-8")
    evaluate(params)  # no run is open, as when only this stage was stale
    content = json.loads(Path("reports/arp.json").read_text(encoding="utf-8"))
    assert content["models"]["gfm"]["run_id"] == "abc" and content["models"]["random"]["run_id"] is None
    scenes = content["tasks"]["scenes"]
    assert (scenes["metric"], scenes["index"], len(scenes["settings"])) == ("accuracy", "scenes-index", 32)

    client = import_mlflow().MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    (run,) = client.search_runs([client.get_experiment_by_name("gfm").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["scored.abc"] == "gfm"
    assert run.data.tags["validation"] == "passed, 1 warnings"
    assert len(run.data.tags["validation.splits"]) == 32
    kept = {path.path for path in client.list_artifacts(run.info.run_id)}
    assert {"results.csv", "arp.json"} <= kept


def test_models_of_one_task_that_were_trained_on_different_tables_have_no_common_ground(workspace: Any) -> None:
    path = Path("models/tasks/scenes/gfm/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    more_seeds = record["settings"] | {"finetune": record["settings"]["finetune"] | {"seeds": [0, 1, 2, 3, 4]}}
    path.write_text(json.dumps(record | {"index": "another", "settings": more_seeds}), encoding="utf-8")
    evaluate(workspace.params)
    tasks = json.loads(Path("reports/arp.json").read_text(encoding="utf-8"))["tasks"]
    assert tasks["scenes"]["index"] is None and tasks["buildings"]["index"] == "buildings-index"
    assert tasks["scenes"]["settings"] is not None  # more seeds are no other ground


def test_a_task_to_agree_on_must_exist(fabricate: Any) -> None:
    with pytest.raises(ValueError, match=r"promotion\.tasks names roofs, which is not in tasks"):
        fabricate.params(promotion={"tasks": ["roofs"]})
