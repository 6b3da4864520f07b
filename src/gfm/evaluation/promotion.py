"""The gate before the champion's place: every reason why a version may not take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from pydantic import JsonValue

from gfm.evaluation.arp import UndefinedARP, relative_performance
from gfm.evaluation.bootstrap import Interval, bootstrap_intervals
from gfm.evaluation.scored_version import ScoredVersion, taken_along
from gfm.evaluation.verdict import TOO_NARROW
from gfm.params import Params
from gfm.tracking.registry import NO_PARENTS
from gfm.tracking.scored import PASSED, VALIDATION
from gfm.tracking.versions import Version

CHALLENGER, RIVAL = "challenger", "rival"  # their names in the table that compares them


@dataclass(frozen=True)
class Rival:
    """Whom the challenger must beat: the champion, or the baseline where there is no champion yet."""

    name: str  # for the reader
    scored: ScoredVersion
    model: str  # its name in those results

    @property
    def scores(self) -> pd.DataFrame:
        return self.scored.of(self.model)


@dataclass(frozen=True)
class Gain:
    """How much better the challenger is, percent of the rival's score; interval None: there is none."""

    value: float
    interval: Interval | None

    def told(self, level: str) -> str:
        if self.interval is None:
            return f"{self.value:+.2f} % (no interval)"
        return f"{self.value:+.2f} % ({level} interval {self.interval.low:+.2f} to {self.interval.high:+.2f})"

    def as_dict(self) -> dict[str, JsonValue]:
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        return {"value": self.value, "low": low, "high": high}


@dataclass(frozen=True)
class Judgement:
    """What the gate found; without reasons it is open."""

    reasons: list[str]
    rival: str
    tasks: dict[str, Gain]  # relative gain by task; empty where the two cannot be compared
    arp: Gain | None
    level: str  # of the intervals

    @property
    def line(self) -> str:
        """The comparison, for a terminal."""
        if self.arp is None:
            return f"not comparable with {self.rival}"
        return f"ARP {self.arp.told(self.level)} over {self.rival} on {', '.join(self.tasks)}"


def judge(params: Params, challenger: ScoredVersion, rival: Rival) -> Judgement:
    """Whether the challenger may become champion: it beats the rival on equal ground, and its origin is known."""
    level = f"{100 * params.evaluate.confidence:g} %"
    tasks = agreed_tasks(params)
    reasons = _ground_reasons(tasks, challenger, rival)
    arp, gains = None, {}
    if not reasons:
        reasons += _seed_reasons(params, tasks, challenger, rival)
        table = _table(tasks, challenger, rival)
        try:
            arp = _gain(params, table)
            gains = {task: _gain(params, table[table["task"] == task]) for task in tasks}
        except UndefinedARP as error:
            reasons.append(f"ARP over {rival.name} is not defined: {error}".replace(RIVAL, rival.name))
        else:
            reasons += _gain_reasons(params, arp, gains, rival.name, level)
    reasons += _validation_reasons(challenger)
    reasons += _origin_reasons(challenger.version)
    return Judgement(reasons, rival.name, gains, arp, level)


def agreed_tasks(params: Params) -> list[str]:
    """The tasks that decide: promotion.tasks, else all that ARP counts and are not too small to conclude from."""
    if params.promotion.tasks is not None:
        return list(params.promotion.tasks)
    too_small = params.evaluate.too_small
    return [name for name, task in params.tasks.items() if name not in too_small and task.variant_of is None]


def _ground_reasons(tasks: Sequence[str], challenger: ScoredVersion, rival: Rival) -> list[str]:
    if not tasks:
        return ["every task is too small to conclude from; name those that shall decide in promotion.tasks"]
    if rival.scored is challenger and rival.model == challenger.model:
        return [f"it is {rival.name} itself; compare it with another evaluate.baseline"]
    reasons = []
    for task in tasks:
        both = ((f"version {challenger.version.number}", challenger.of(challenger.model)), (rival.name, rival.scores))
        lacking = [name for name, scores in both if not (scores["task"] == task).any()]
        if lacking:
            reasons.append(f"{task}: there is no score of {' or '.join(lacking)}; fine-tune and evaluate again")
            continue
        own, other = challenger.grounds[task], rival.scored.grounds[task]
        if own.metric != other.metric:
            reasons.append(f"{task}: scored by {own.metric}, but {rival.name} by {other.metric}")
        for thing, mine, theirs in (
            ("task index", own.index, other.index),
            ("task settings", own.settings, other.settings),
        ):
            if mine is None or theirs is None:
                reasons.append(
                    f"{task}: no one {thing} is recorded for all models; run `dvc repro -s -f finetune evaluate`"
                )
            elif mine != theirs:
                reasons.append(
                    f"{task}: scored on another {thing} ({mine[:10]}) than {rival.name} ({theirs[:10]}); "
                    f"to score {rival.name} on this one too, {taken_along(rival.scored.version)}"
                )
    return reasons


def _seed_reasons(params: Params, tasks: Sequence[str], challenger: ScoredVersion, rival: Rival) -> list[str]:
    few = []
    for name, scores in (("it", challenger.of(challenger.model)), (rival.name, rival.scores)):
        counts = {task: int((scores["task"] == task).sum()) for task in tasks}
        short = [f"{task} {count}" for task, count in counts.items() if count < params.promotion.min_seeds]
        if short:
            few.append(f"{name} has {', '.join(short)}")
    if not few:
        return []
    wanted = params.promotion.min_seeds
    return [f"fewer seeds than promotion.min_seeds = {wanted}: {'; '.join(few)}. {TOO_NARROW}"]


def _table(tasks: Sequence[str], challenger: ScoredVersion, rival: Rival) -> pd.DataFrame:
    own, other = challenger.of(challenger.model), rival.scores
    table = pd.concat([other.assign(model=RIVAL), own.assign(model=CHALLENGER)], ignore_index=True)
    return table[table["task"].isin(tasks)].reset_index(drop=True)


def _gain(params: Params, table: pd.DataFrame) -> Gain:
    value = relative_performance(table, RIVAL)[CHALLENGER].arp
    intervals = bootstrap_intervals(
        table,
        RIVAL,
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    return Gain(value, intervals.arp[CHALLENGER])


def _gain_reasons(params: Params, arp: Gain, gains: dict[str, Gain], rival: str, level: str) -> list[str]:
    reasons = []
    if arp.interval is None or arp.interval.low <= 0:
        reasons.append(f"it is not shown to beat {rival}: ARP {arp.told(level)}")
    margin = 100 * params.promotion.margin
    for task, gain in gains.items():
        allowed = f"promotion.margin = {margin:g} %"
        if gain.interval is None:
            said = f"{gain.value:+.2f} % without an interval does not show that it is no more than {allowed} worse"
            reasons.append(f"{task}: {said} than {rival}; give the task more seeds")
        elif gain.interval.low < -margin:
            sure = "is" if gain.interval.high < -margin else "may be"
            reasons.append(f"{task}: it {sure} worse than {rival} by more than {allowed}: {gain.told(level)}")
    return reasons


def _validation_reasons(challenger: ScoredVersion) -> list[str]:
    found = challenger.tags.get(VALIDATION)
    if found is None:
        return ["the result of its data validation is not recorded; run `dvc repro -s -f evaluate`"]
    if not found.startswith(PASSED):
        return [f"its data validation is `{found}`, not `{PASSED}`; mend the data and pretrain again"]
    without = challenger.version.tags.get("data.without")
    if without:
        return [f"it was pretrained without {without}, but the whole collection was validated; promote one that saw it"]
    for part in ("manifest", "splits"):
        seen, validated = challenger.version.tags.get(f"data.{part}"), challenger.tags.get(f"{VALIDATION}.{part}")
        if seen is not None and seen != validated:
            return [
                f"what was validated ({part} {(validated or 'not recorded')[:10]}) is not what it was trained on "
                f"({part} {seen[:10]}); run `dvc repro`"
            ]
    return []


def _origin_reasons(version: Version) -> list[str]:
    """What a version must say of its origin, by its tags."""
    tags, reasons = version.tags, []
    for key, what in (
        ("git.commit", "commit"),
        ("data.manifest", "hash of the collection's manifest"),
        ("data.splits", "hash of the collection's splits"),
        ("seed", "seed"),
        ("licence", "licence of its weights"),
        ("data.licences", "licence of its data"),
        ("parents", f"teacher or other parent, nor `{NO_PARENTS}`"),
    ):
        if not tags.get(key):
            reasons.append(f"its lineage has no {what} (tag {key}); pretrain it again")
    if tags.get("git.dirty") == "true":
        reasons.append("its code had changes that are not committed; commit them and pretrain it again")
    for name in (parent for parent in tags.get("parents", NO_PARENTS).split(", ") if parent != NO_PARENTS):
        if not tags.get(f"parents.{name}.run_id"):
            reasons.append(
                f"its lineage has no run of its parent {name} (tag parents.{name}.run_id); make {name} again with "
                "tracking, then pretrain it again"
            )
    if not _is_number(tags.get("kg_co2eq")):
        reasons.append(f"its energy is not a number but `{tags.get('kg_co2eq', 'not recorded')}`; pretrain it measured")
    return reasons


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and float(text) >= 0  # nan is not
    except ValueError:
        return False
