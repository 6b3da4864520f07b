"""Which pretrainings `benchmarks/quality.py` compares, and for how many epochs each of them trains."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

SAMPLES, TIME = "samples", "time"  # the budgets: as many images seen, or as many seconds spent, as the reference
REFERENCE = "gfm"
UNTRAINED = "random"  # no pretraining


@dataclass(frozen=True, slots=True)
class Run:
    """One pretraining; `recipe` is a key of `pretrain` in the configuration."""

    recipe: str
    budget: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Of its encoder."""
        return f"{self.recipe}-{self.budget}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished pretraining took. `rate` is images a second in training steps alone, without waiting to start."""

    epochs: int
    seconds: float
    samples: int
    rate: float
    cached_crops: int = 0  # that its recipe would cache; a training caches no more than it has epochs

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch's steps."""
        return self.samples / self.rate / self.epochs

    @property
    def fixed_s(self) -> float:
        """Everything but steps: building the cache, starting, validating."""
        return max(0.0, self.seconds - self.samples / self.rate)

    def seconds_of(self, epochs: int, other_s: float) -> float:
        """Seconds that so many epochs would take; of `fixed_s`, all but `other_s` went into the cache, crop by crop."""
        crops = min(self.cached_crops, self.epochs)
        crop_s = max(0.0, self.fixed_s - other_s) / crops if crops else 0.0
        return self.fixed_s + crop_s * (min(self.cached_crops, epochs) - crops) + epochs * self.epoch_s


def epochs_in(seconds: float, cost: Cost) -> int:
    """Epochs of the steps of `cost` in so many seconds; at least 2, one to warm up and one to learn."""
    return max(2, round(seconds / cost.epoch_s))


def same_samples(recipes: Sequence[str], seeds: Sequence[int], epochs: int) -> list[Run]:
    """All recipes for the same epochs, seed by seed, so that a change of the machine's speed meets all recipes."""
    return [Run(recipe, SAMPLES, seed, epochs) for seed in seeds for recipe in recipes]


def same_time(recipes: Sequence[str], seeds: Sequence[int], costs: Mapping[str, Sequence[Cost]]) -> list[Run]:
    """The recipes but the reference, whose own runs count, for as long as the reference took for the same samples.

    `costs` holds those of each recipe's runs for the same samples; medians over them decide.
    """
    aim = statistics.median(cost.seconds for cost in costs[REFERENCE])
    other = statistics.median(cost.fixed_s for cost in costs[REFERENCE])  # the reference caches nothing

    def off(recipe: str, epochs: int) -> float:
        return abs(statistics.median(cost.seconds_of(epochs, other) for cost in costs[recipe]) - aim)

    epochs = {}
    for recipe in recipes:
        most = max(2, math.ceil(aim / min(cost.epoch_s for cost in costs[recipe])))
        epochs[recipe] = min(range(2, most + 1), key=partial(off, recipe))
    return [Run(recipe, TIME, seed, epochs[recipe]) for seed in seeds for recipe in recipes if recipe != REFERENCE]


def parameters(config: Mapping[str, Any], runs: Sequence[Run], seeds: Sequence[int]) -> dict[str, Any]:
    """The configuration with these pretrainings in the place of its own, and the tasks' fine-tuning on `seeds`."""
    raw = copy.deepcopy(dict(config))
    raw["pretrain"] = {
        run.name: {**copy.deepcopy(config["pretrain"][run.recipe]), "seed": run.seed, "epochs": run.epochs}
        for run in runs
    }
    for task in raw["tasks"].values():
        task["finetune"]["seeds"] = list(seeds)
    raw["models"] = [UNTRAINED, *raw["pretrain"]]
    raw["evaluate"] = {**raw.get("evaluate", {}), "baseline": UNTRAINED}
    return raw
