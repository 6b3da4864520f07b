"""The one sentence that a report says first, no surer than the intervals allow."""

from __future__ import annotations

from dataclasses import dataclass

from gfm.evaluation.assessment import Assessment
from gfm.evaluation.bootstrap import Interval

UNTRAINED = "random"  # is no rival: it shows what the architecture gives by itself
FEW_SEEDS = 5  # with fewer, an interval that excludes 0 is not taken as evidence
# Scores drawn from one normal distribution for both models, 1 to 6 tasks, seeds shared by the models or not.
TOO_NARROW = (
    f"A bootstrap interval over fewer than {FEW_SEEDS} seeds is too narrow to conclude from: "
    "simulated without any difference, 12 to 49 % of 95 % intervals over 2 or 3 seeds exclude 0."
)


@dataclass(frozen=True)
class Verdict:
    """What to say first, how sure it is, and what tasks too small to conclude from do to it."""

    headline: str
    detail: str
    caution: str = ""

    @property
    def line(self) -> str:
        """All of it, for a terminal."""
        return _sentences(f"{self.headline}.", self.detail, self.caution)


def verdict(assessment: Assessment) -> Verdict:
    """Name the trained model with the highest ARP and say only what its interval supports."""
    if assessment.undefined:
        return Verdict("ARP is not defined", f"{assessment.undefined[0].upper()}{assessment.undefined[1:]}.")
    baseline = assessment.baseline
    rivals = sorted(
        (model for model in assessment.models if model != baseline),
        key=lambda model: -assessment.performance[model].arp,
    )
    if not rivals:
        return Verdict(f"Only the baseline {baseline} was scored", "Nothing to compare it with.")
    trained = [model for model in rivals if model != UNTRAINED]
    best, *others = trained or rivals
    arp, interval = assessment.performance[best].arp, assessment.intervals.arp[best]
    picked = f"{best} has the highest ARP" + (
        f" of {len(others) + 1} models compared with {baseline}" if others else ""
    )
    chance = f"{picked}; picking the best of several flatters it." if others else ""
    caution, overturned = _without_small_tasks(assessment, best)
    if rivals[0] == UNTRAINED != best:
        caution = _sentences(f"{UNTRAINED}, which starts without any pretraining, is ahead of it.", caution)
    if interval is None:
        why = assessment.intervals.reasons[best]
        return Verdict(
            f"No difference shown between {best} and {baseline}",
            _sentences(
                f"Its ARP of {arp:+.2f} % has no interval to judge it by ({why}); give the tasks more seeds.", chance
            ),
            caution,
        )
    bounds = f"{assessment.level} interval {_bounds(interval)}"
    if interval.holds(0):
        return Verdict(
            f"No difference shown between {best} and {baseline}",
            f"{picked}, {arp:+.2f} %, but its {bounds} includes 0.",
            caution,
        )
    if overturned:
        return Verdict(
            f"No difference shown between {best} and {baseline}",
            f"{picked}, {arp:+.2f} % ({bounds}), but it rests on tasks too small to conclude from.",
            caution,
        )
    fewest, most = _seeds(assessment, best)
    if fewest < FEW_SEEDS:
        side = "ahead of" if arp > 0 else "behind"
        seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return Verdict(
            f"{best} is {side} {baseline} with {seeds} seeds: ARP {arp:+.2f} %, not conclusive",
            _sentences(_beside(assessment, best, others, bounds), TOO_NARROW, chance),
            caution,
        )
    if arp < 0:
        return Verdict(
            f"No model beats the baseline {baseline}", f"The closest is {best}: ARP {arp:+.2f} % ({bounds}).", caution
        )
    return Verdict(
        f"{best} beats {baseline}: ARP {arp:+.2f} %",
        _sentences(_beside(assessment, best, others, bounds), chance),
        caution,
    )


def _without_small_tasks(assessment: Assessment, best: str) -> tuple[str, bool]:
    """What the best model's ARP is without the tasks too small to conclude from; True: its sign is not shown."""
    if not assessment.too_small:
        return "", False
    names = ", ".join(assessment.too_small)
    if assessment.firm is None:
        return f"Every task ({names}) is too small to conclude from.", True
    performance, intervals = assessment.firm
    arp, interval = performance[best].arp, intervals.arp[best]
    said = f"Without {names}, too small to conclude from: ARP {arp:+.2f} %"
    if interval is None:
        return f"{said}.", False
    turned = interval.holds(0) or (arp > 0) != (assessment.performance[best].arp > 0)
    return f"{said} ({_bounds(interval)}).", turned


def _seeds(assessment: Assessment, best: str) -> tuple[int, int]:
    """The smallest and the largest number of seeds that the comparison with the baseline rests on."""
    counts = [assessment.seeds[task, model] for task in assessment.counted for model in (best, assessment.baseline)]
    return min(counts), max(counts)


def _sentences(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _beside(assessment: Assessment, best: str, others: list[str], bounds: str) -> str:
    """How sure the first place among the other models is."""
    first = assessment.intervals.arp[best]
    overlapping = [
        model
        for model in others
        if first is not None and (other := assessment.intervals.arp[model]) is not None and first.overlaps(other)
    ]
    sentence = f"{bounds[0].upper()}{bounds[1:]}."
    if overlapping:
        sentence += f" It overlaps with that of {', '.join(overlapping)}: which of them is best is not shown."
    return sentence


def _bounds(interval: Interval) -> str:
    return f"{interval.low:+.2f} to {interval.high:+.2f}"
