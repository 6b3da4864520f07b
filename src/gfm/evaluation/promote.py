"""`gfm promote`: a version of the registered model becomes champion, through the gate or by a person's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import JsonValue

from gfm.errors import DataError, GfmError
from gfm.progress import say

if TYPE_CHECKING:
    from gfm.evaluation.promotion import Judgement, Rival
    from gfm.evaluation.scored_version import ScoredVersion
    from gfm.params import Params
    from gfm.tracking.versions import Registry


def promote(params: Params, number: str | None, *, dry_run: bool) -> bool:
    """Make the challenger, or version `number`, the champion if the gate lets it; says every reason where it does not.

    False where it was refused, and nothing changed; what a promotion that was killed left to do is done first, but in a
    dry run. GfmError where there is nothing to promote or to compare, and where the registry does not answer.
    """
    from gfm.tracking.store import gone_is_an_error

    with gone_is_an_error(params.tracking.uri):
        return _promote(params, number, dry_run=dry_run)


def _promote(params: Params, number: str | None, *, dry_run: bool) -> bool:
    from gfm.evaluation.promotion import judge
    from gfm.evaluation.scored_version import read_scored
    from gfm.tracking.champion import crown, settle
    from gfm.tracking.versions import CHALLENGER, CHAMPION, open_registry

    registry = open_registry(params)
    aliases = registry.aliases()
    wanted = number or aliases.get(CHALLENGER)  # before `settle`, which ends the challenge of a present champion
    if not dry_run:
        settle(registry)
        aliases = registry.aliases()
    if wanted is None:
        present = f" to version {aliases[CHAMPION]}, the champion" if CHAMPION in aliases else ""
        raise GfmError(
            f"{registry.name}: no version is {CHALLENGER}{present}; pretrain one, or name one with --version "
            f"({', '.join(version.number for version in registry.versions())})"
        )
    version, what = registry.version(wanted), f"{registry.name} version {wanted}"
    if aliases.get(CHAMPION) == wanted:
        say(f"{what}: is the champion")
        return True
    challenger = read_scored(registry, version)
    rival = _rival(params, registry, challenger, aliases.get(CHAMPION))
    judgement = judge(params, challenger, rival)
    if judgement.reasons:
        say(f"{what} does not become champion; {judgement.line}")
        for reason in judgement.reasons:
            say(f"  - {reason}")
        return False
    if dry_run:
        say(f"{what} would become champion: {judgement.line}")
        return True
    crown(registry, version, aliases, _record(params, judgement, challenger, rival))
    say(f"{what} is champion: {judgement.line}")
    return True


def set_champion(params: Params, number: str, reason: str, *, dry_run: bool) -> None:
    """Make version `number` the champion without the gate, for a `reason` that its record keeps: a way back."""
    from gfm.tracking.store import gone_is_an_error

    if not reason.strip():
        raise GfmError("--to: give a --reason; the version's record keeps it")
    with gone_is_an_error(params.tracking.uri):
        _set_champion(params, number, reason, dry_run=dry_run)


def _set_champion(params: Params, number: str, reason: str, *, dry_run: bool) -> None:
    from gfm.tracking.champion import crown, settle
    from gfm.tracking.versions import CHAMPION, open_registry

    registry = open_registry(params)
    version, what = registry.version(number), f"{registry.name} version {number}"
    if not dry_run:
        settle(registry)
    aliases = registry.aliases()
    if aliases.get(CHAMPION) == number:
        say(f"{what}: is the champion")
        return
    before = f"instead of version {aliases[CHAMPION]}" if CHAMPION in aliases else "the first"
    if dry_run:
        say(f"{what} would become champion, {before}, without the gate: {reason}")
        return
    crown(registry, version, aliases, {"gate": "none: set by hand", "reason": reason})
    say(f"{what} is champion, {before}, without the gate: {reason}")


def _rival(params: Params, registry: Registry, challenger: ScoredVersion, champion: str | None) -> Rival:
    from gfm.evaluation.promotion import Rival
    from gfm.evaluation.scored_version import read_scored

    if champion is not None:
        scored = read_scored(registry, registry.version(champion))
        return Rival(f"version {champion}", scored, scored.model)
    name = params.evaluate.baseline
    if challenger.of(name).empty:
        raise DataError(
            f"evaluate.baseline = {name}: is not among the models that run {challenger.pipeline} scored; there is no "
            "champion yet, and the first one must beat it: `dvc repro`"
        )
    return Rival(f"the baseline {name}", challenger, name)


def _record(params: Params, judgement: Judgement, challenger: ScoredVersion, rival: Rival) -> dict[str, JsonValue]:
    assert judgement.arp is not None
    return {
        "gate": "passed",
        "over": judgement.rival,
        "arp": judgement.arp.as_dict(),
        "tasks": {task: gain.as_dict() for task, gain in judgement.tasks.items()},
        "confidence": params.evaluate.confidence,
        "margin": params.promotion.margin,
        "min_seeds": params.promotion.min_seeds,
        "scored_by": challenger.pipeline,
        "rival_scored_by": rival.scored.pipeline,
    }
