"""The tables of `benchmarks/pretrain.py`: medians over rounds, ratios within a round, and the aims."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PHASES = ("data", "teacher", "forward", "backward", "optimiser")
REFERENCE = "gfm"
FLOAT32 = "32-true"


@dataclass
class Row:
    """A recipe with switches at a precision, and what its rounds measured."""

    recipe: str
    switches: tuple[str, ...]
    precision: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""

    @property
    def name(self) -> str:
        return "+".join((self.recipe, *self.switches))

    @property
    def caches(self) -> bool:
        """Whether the teacher's features are read from a cache."""
        return self.recipe == "gfm-fast" or "cached" in self.switches

    def number(self, switch: str) -> int | None:
        """N of `switch=N`, if given."""
        found = [int(given.split("=")[1]) for given in self.switches if given.startswith(f"{switch}=")]
        return found[0] if found else None


def summarise(rows: list[Row], *, batch: int, cached_crops: int, epochs: int) -> list[dict[str, Any]]:
    """The medians of each row that did not fail, and its ratios within rounds.

    A ratio says how many times the reference's cost or rate this is: above 1 is faster for img/s and dearer for the
    rest. `x_same` is to `gfm` at the same precision, `x_float32` to it in 32-true, [median, lowest, highest].
    """
    share = min(cached_crops, epochs) / epochs  # of a teacher's pass for each image seen, where a cache is built
    finished = [row for row in rows if not row.failed]
    costs = {id(row): [_round_costs(found, row, batch, share) for found in row.rounds] for row in finished}

    def reference(precision: str) -> list[dict[str, float | None]] | None:
        found = [row for row in finished if (row.recipe, row.switches, row.precision) == (REFERENCE, (), precision)]
        return costs[id(found[0])] if found else None

    summary = []
    for row in finished:
        own = costs[id(row)]
        middle = sorted(row.rounds, key=lambda found: found["step_s"])[(len(own) - 1) // 2]
        summary.append(
            {
                "name": row.name,
                "recipe": row.recipe,
                "switches": list(row.switches),
                "precision": row.precision,
                "cost": {key: _median([cost[key] for cost in own]) for key in own[0]},
                "phases_ms": {phase: 1000 * middle["phases"][phase] for phase in PHASES},  # of the median round
                "x_same": _ratios(own, reference(row.precision)),
                "x_float32": _ratios(own, reference(FLOAT32)),
                "energy": row.rounds[0]["energy"],
            }
        )
    return summary


def _round_costs(found: dict[str, Any], row: Row, batch: int, share: float) -> dict[str, float | None]:
    """Costs and rates of one round; None: not known of it."""
    building = found["cache_s"] * share
    joules, gflop = found["joules"], found.get("gflop")
    per_image = found["step_s"] / batch
    return {
        "img_per_s_without_cache": 1 / per_image,
        "img_per_s": 1 / (per_image + building),
        "step_ms": 1000 * found["step_s"],
        "cache_ms_per_image": 1000 * found["cache_s"],
        **{f"{phase}_ms": 1000 * found["phases"][phase] for phase in PHASES},
        "peak_mb": found["peak_mb"],
        "gflop": None if gflop is None else gflop + (share * found["teacher_gflop"] if row.caches else 0),
        "teacher_gflop": None if gflop is None else found["teacher_gflop"] * (share if row.caches else 1),
        "joules": None if joules is None else joules + share * found["cache_joules"],
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratios(
    own: list[dict[str, float | None]], reference: list[dict[str, float | None]] | None
) -> dict[str, list[float] | None]:
    """[median, lowest, highest] over rounds of every cost's ratio; None where it cannot be had."""
    ratios: dict[str, list[float] | None] = {}
    for key in own[0]:
        pairs = [(a[key], b[key]) for a, b in zip(own, reference or [], strict=False)]
        found = [a / b for a, b in pairs if a is not None and b is not None and b > 0]
        ratios[key] = [statistics.median(found), min(found), max(found)] if found else None
    return ratios


def tables(summary: list[dict[str, Any]], *, batch: int) -> str:
    """Three tables as text: rates, phases of a step, and memory, FLOPs and energy."""
    width = max(len(line["name"]) for line in summary)

    def times(line: dict[str, Any], key: str, to: str = "x_same") -> str:
        ratio = line[to][key]
        return f"{ratio[0]:.2f}" if ratio else "-"

    def told(line: dict[str, Any], key: str, digits: int) -> str:
        return f"{line['cost'][key]:.{digits}f}"

    def start(line: dict[str, Any]) -> str:
        return f"{line['precision']:<11}{line['name']:<{width}}"

    out = [
        "Images per second; x: times `gfm` at the same precision (the recipe's gain), and times `gfm` in 32-true",
        f"{'precision':<11}{'row':<{width}}{'img/s':>10}{'all in':>10}"
        f"{'x same':>8}{'over rounds':>14}{'x 32-true':>11}",
    ]
    for line in summary:
        low, high = line["x_same"]["img_per_s"][1:] if line["x_same"]["img_per_s"] else (math.nan, math.nan)
        out.append(
            f"{start(line)}{told(line, 'img_per_s_without_cache', 2):>10}{told(line, 'img_per_s', 2):>10}"
            f"{times(line, 'img_per_s'):>8}{f'{low:.2f}-{high:.2f}':>14}{times(line, 'img_per_s', 'x_float32'):>11}"
        )
    out += [
        "",
        f"Milliseconds a step of {batch} images, each with x same precision; waiting for data as a share of the step; "
        "building the cache, ms an image and crop",
        f"{'precision':<11}{'row':<{width}}{'step':>17}"
        + "".join(f"{phase:>17}" for phase in PHASES)
        + f"{'wait':>8}{'cache':>9}",
    ]
    for line in summary:
        phases = line["phases_ms"]
        step = f"{told(line, 'step_ms', 1)} ({times(line, 'step_ms')})"
        parts = [f"{phases[phase]:.1f} ({times(line, f'{phase}_ms')})" for phase in PHASES]
        wait = phases["data"] / sum(phases.values())
        out.append(
            f"{start(line)}{step:>17}"
            + "".join(f"{part:>17}" for part in parts)
            + f"{f'{wait:.1%}':>8}{told(line, 'cache_ms_per_image', 1):>9}"
        )
    out += [
        "",
        "Peak memory of the training process, FLOPs and energy an image, the cache's building counted in",
        f"{'precision':<11}{'row':<{width}}{'MiB':>9}{'x same':>8}{'x 32':>6}"
        f"{'GFLOP':>9}{'teacher':>9}{'x same':>8}{'x 32':>6}{'J':>14}{'x same':>8}{'x 32':>6}",
    ]
    for line in summary:
        joules = "not readable" if line["cost"]["joules"] is None else told(line, "joules", 2)
        out.append(
            start(line)
            + f"{told(line, 'peak_mb', 0):>9}{times(line, 'peak_mb'):>8}{times(line, 'peak_mb', 'x_float32'):>6}"
            + f"{told(line, 'gflop', 2):>9}{told(line, 'teacher_gflop', 2):>9}"
            + f"{times(line, 'gflop'):>8}{times(line, 'gflop', 'x_float32'):>6}"
            + f"{joules:>14}{times(line, 'joules'):>8}{times(line, 'joules', 'x_float32'):>6}"
        )
    return "\n".join(out)


def aims(summary: list[dict[str, Any]], *, on_gpu: bool) -> str:
    """What Swin-B at 192 px is to reach, beside what it did; a row with fewer visible units than published is none."""
    fast = [
        line
        for line in summary
        if line["recipe"] == "gfm-fast" and not any(switch.startswith("visible=") for switch in line["switches"])
    ]
    least = 3.0 if on_gpu else 2.5
    found = [
        (f"{line['name']} over gfm, both {line['precision']}, all in", line["x_same"]["img_per_s"], least)
        for line in fast
        if not line["switches"]
    ]
    if on_gpu:
        found += [
            (f"{line['name']} {line['precision']}, img/s all in", [line["cost"]["img_per_s"]], 6500.0) for line in fast
        ]
    else:
        found += [
            (f"{line['name']} {line['precision']} over gfm {FLOAT32}, all in", line["x_float32"]["img_per_s"], 10.0)
            for line in fast
        ]
    lines = [f"{what}: {value[0]:.2f} (aim: {aim:g} or more)" for what, value, aim in found if value]
    if on_gpu:
        for line in fast:
            wait = line["phases_ms"]["data"] / sum(line["phases_ms"].values())
            lines.append(f"{line['name']} {line['precision']}, waiting for data: {wait:.1%} (aim: 2 % or less)")
    return "\n".join(lines)


def header_text(head: dict[str, Any]) -> str:
    """The header as lines."""
    hardware_found, given = head["hardware"], head["arguments"]
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    return "\n".join(
        [
            f"{hardware_found['cpu']}, {hardware_found['cores']} cores, {head['threads']} threads; on {head['device']}",
            f"Python {head['python']}, {versions}, commit {head['commit']}{' and edits' if head['edited'] else ''}",
            f"{given['model']} at {given['px']} px, teacher at {given['teacher_px']} px, batch {given['batch']}, "
            f"{given['workers']} workers, {given['masking_ratio']:.0%} of the units masked (rounded up)",
            f"{given['rounds']} rounds of {given['steps']} steps after {given['warmup']}; cache of "
            f"{given['cached_crops']} crops over {given['epochs']} epochs; energy: {head['energy'] or 'not readable'}",
            "memory: " + ("allocated on the accelerator" if head["device"] != "cpu" else _resident(head)),
        ]
    )


def _resident(head: dict[str, Any]) -> str:
    return f"resident, of which {head['before_mb']:.0f} MiB are Python and its libraries before any network is built"
