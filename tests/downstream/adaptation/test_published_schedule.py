"""The published classification recipe: parameter groups and learning rates, compared with the authors' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from gfm.downstream.adaptation.full import Full
from gfm.downstream.module import Finetuning
from gfm.downstream.tasks import Batch, TaskSpec, build_model
from gfm.downstream.training import Training
from gfm.lightning_progress import quiet_lightning
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.published import published_name
from gfm.params import Finetune

FILE = Path(__file__).parents[3] / ".." / "shared" / "parity" / "gfm_reference_schedule.json"
TOLERANCE = 1e-9  # relative
SWIN = "swin_tiny_patch4_window7_224"
RECIPE = {"layer_decay": 0.9, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
needs_the_file = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")


def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["finetune"]
    return stored


def _recipe(*, paper_compat: bool, batch_size: int = 512, epochs: int = 100) -> Full:
    full = {**RECIPE, "schedule": {"paper_compat": paper_compat}}
    return Full(Finetune(mode="full", epochs=epochs, batch_size=batch_size, weight_decay=0.05, full=full))


def _model(depths: tuple[int, ...]) -> Any:
    """A narrow Swin under a linear head: names and layers do not depend on width."""
    args = {"embed_dim": 4, "depths": depths, "num_heads": (1, 1, 1, 1), "window_size": 1}
    backbone = build_backbone(SWIN, args, image_px=32, bands=3, seed=0)
    card = EncoderCard(SWIN, args, 32, ["R", "G", "B"], [0.5] * 3, [0.5] * 3, "live", "random", "CC0")
    return build_model("classification", Encoder(backbone, card, "swin"), TaskSpec("t", ("a", "b"), 1, 3, 32))


def _published(own: str) -> str:
    """The published fine-tuning names a classifier's parameters, without a prefix for its trunk."""
    place = own.removeprefix("encoder.")
    return own if place == own else published_name(f"student.encoder.{place}").removeprefix("encoder.")


def _groups(recipe: Full, model: Any) -> dict[str, Any]:
    names = {id(parameter): _published(name) for name, parameter in model.named_parameters()}
    return {
        group["name"]: {**group, "params": sorted(names[id(p)] for p in group["params"])}
        for group in recipe.groups(model)
    }


def _rates(recipe: Full, model: Any, steps_per_epoch: int, steps: list[int]) -> dict[int, dict[str, float]]:
    """The learning rates that an optimiser really has at these steps."""
    optimiser = torch.optim.AdamW([dict(group) for group in recipe.groups(model)])
    schedule = recipe.rates()(optimiser, steps_per_epoch, recipe.settings.epochs)
    found = {}
    for step in steps:
        if step:  # the first step is taken with what the scheduler set when it was made
            schedule.step_update(step)
        found[step] = {group["name"]: group["lr"] for group in optimiser.param_groups}
    return found


def _ours(paper_compat: bool) -> tuple[dict[str, Any], dict[int, dict[str, float]], dict[str, Any]]:
    stored = _stored()
    recipe = _recipe(paper_compat=paper_compat, batch_size=stored["global_batch"], epochs=stored["epochs"])
    model = _model((2, 2, 6, 2))
    rates = _rates(recipe, model, stored["steps_per_epoch"], [int(step) for step in stored["lr_at_step"]])
    return _groups(recipe, model), rates, stored


@pytest.mark.parametrize("paper_compat", [True, False])
@pytest.mark.field
@needs_the_file
def test_every_stored_group_is_ours(paper_compat: bool) -> None:
    groups, _, stored = _ours(paper_compat)
    assert len(groups) == len(stored["groups"]) == 28
    for theirs in stored["groups"]:
        own = groups[theirs["name"]]
        assert own["params"] == sorted(theirs["params"])
        assert own["weight_decay"] == theirs["weight_decay"]
        assert own["lr_scale"] == pytest.approx(theirs["lr_scale"], rel=TOLERANCE)


@pytest.mark.field
@needs_the_file
def test_every_stored_learning_rate_is_ours_with_paper_compat() -> None:
    _, rates, stored = _ours(paper_compat=True)
    assert len(rates) == 7
    for step, theirs in stored["lr_at_step"].items():
        assert rates[int(step)] == pytest.approx(theirs, rel=TOLERANCE), step


@pytest.mark.field
@needs_the_file
def test_without_paper_compat_a_layer_has_its_share_of_the_stored_rate_of_the_head() -> None:
    groups, rates, stored = _ours(paper_compat=False)
    for step, theirs in stored["lr_at_step"].items():
        for name, found in rates[int(step)].items():
            share = groups[name]["lr_scale"]
            assert found == pytest.approx(share * theirs["layer_13_decay"], rel=TOLERANCE), (step, name)
    first, last = (next(iter(stored["lr_at_step"])), list(stored["lr_at_step"])[-1])
    # Warm-up begins, and the cosine ends, where the published code does: there the share counts once in both.
    assert rates[int(first)] == pytest.approx(stored["lr_at_step"][first], rel=TOLERANCE)
    assert rates[int(last)] == pytest.approx(stored["lr_at_step"][last], rel=1e-6)


@pytest.mark.parametrize(("paper_compat", "rises"), [(True, True), (False, False)])
def test_the_lowest_layers_of_a_deep_network_rise_after_the_warm_up_only_as_published(
    paper_compat: bool, rises: bool
) -> None:
    recipe = _recipe(paper_compat=paper_compat)
    rates = _rates(recipe, _model((2, 2, 18, 2)), 50, [1000, 3000, 4999])
    stem = [rates[step]["layer_0_decay"] for step in (1000, 3000, 4999)]
    assert (stem == sorted(stem)) == rises
    head = [rates[step]["layer_25_decay"] for step in (1000, 3000, 4999)]
    assert head == sorted(head, reverse=True)


def test_rates_grow_with_the_batch() -> None:
    small, large = (
        _rates(_recipe(paper_compat=True, batch_size=size), _model((1, 1, 1, 1)), 50, [1500]) for size in (256, 512)
    )
    assert large[1500] == pytest.approx({name: 2 * rate for name, rate in small[1500].items()}, rel=TOLERANCE)


def test_training_really_has_these_rates_at_every_step() -> None:
    full = {"layer_decay": 0.5, "schedule": {"warmup_epochs": 1, "paper_compat": True}}
    recipe = Full(Finetune(epochs=3, batch_size=4, full=full))
    model = _model((1, 1, 1, 1))
    expected = _rates(recipe, model, 2, list(range(6)))
    seen: list[dict[str, float]] = []
    optimisers: list[torch.optim.Optimizer] = []

    def schedule(optimiser: torch.optim.Optimizer) -> Any:
        optimisers.append(optimiser)
        return recipe.rates()(optimiser, 2, 3)

    def note(batch: Batch) -> Batch:
        seen.append({group["name"]: group["lr"] for group in optimisers[0].param_groups})
        return batch

    batch = Batch(torch.zeros(4, 1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    module = Finetuning(model, groups=recipe.groups(model), schedule=schedule, augment=note)
    quiet_lightning()
    trainer = Training(recipe.settings, {}, seed=0, accelerator="cpu", what="toy").trainer()
    trainer.fit(module, _batches([batch, batch]), _batches([batch]))
    assert seen == [pytest.approx(expected[step], rel=TOLERANCE) for step in range(6)]


def _batches(batches: list[Batch]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
