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
from gfm.downstream.parity import compare_finetuning, narrow_classifier, published_recipe, rates_at
from gfm.downstream.tasks import Batch
from gfm.downstream.training import Training
from gfm.errors import GfmError
from gfm.lightning_progress import quiet_lightning
from gfm.models.schedule_file import SCHEDULE_TOLERANCE, StoredFinetuning
from gfm.params import Finetune

FILE = Path(__file__).parents[3] / ".." / "shared" / "parity" / "gfm_reference_schedule.json"
TOLERANCE = 1e-9  # relative
needs_the_file = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")


def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["finetune"]
    return stored


def _recipe(*, paper_compat: bool, batch_size: int = 512, epochs: int = 100) -> Full:
    return published_recipe(paper_compat=paper_compat, batch_size=batch_size, epochs=epochs, layer_decay=0.9)


def _changed(**changes: Any) -> StoredFinetuning:
    return StoredFinetuning.model_validate(_stored() | changes)


def _above(stored: StoredFinetuning) -> list[str]:
    return [row.quantity for row in compare_finetuning(FILE, stored) if not row.within(SCHEDULE_TOLERANCE)]


@pytest.mark.field
@needs_the_file
def test_every_stored_group_and_learning_rate_is_ours() -> None:
    rows = compare_finetuning(FILE, _changed())
    assert len(rows) == 1 + 28 * 3 + 7 * (28 + 1)
    assert _above(_changed()) == []


@pytest.mark.field
@needs_the_file
def test_what_differs_is_named() -> None:
    stored = _stored()
    stored["lr_at_step"]["500"]["layer_3_decay"] *= 1.000001
    assert _above(_changed(**stored)) == ["learning rate of layer_3_decay at step 500"]
    stored = _stored()
    moved = stored["groups"][0]["params"].pop()
    stored["groups"][1]["params"].append(moved)
    first, second = (group["name"] for group in stored["groups"][:2])
    assert _above(_changed(**stored)) == [f"parameters in {first}", f"parameters in {second}"]
    stored = _stored()
    gone = stored["groups"].pop(-1)["name"]
    assert _above(_changed(**stored))[0] == "parameter groups" and gone not in str(_above(_changed(**stored))[0])
    assert "lr_scale of layer_0_decay" in _above(_changed(layer_decay=0.8))


@pytest.mark.field
@needs_the_file
def test_a_schedule_shorter_than_its_warm_up_is_refused() -> None:
    with pytest.raises(GfmError, match=r"finetune: .*warmup_epochs = 20 is more than epochs = 1"):
        compare_finetuning(FILE, _changed(epochs=1))


@pytest.mark.field
@needs_the_file
def test_names_of_another_network_are_refused() -> None:
    groups = [{"name": "layer_0_decay", "lr_scale": 1.0, "weight_decay": 0.05, "params": ["blocks.0.attn.qkv.weight"]}]
    with pytest.raises(GfmError, match=r"finetune\.groups: names are not those of a Swin"):
        compare_finetuning(FILE, _changed(groups=groups))


@pytest.mark.field
@needs_the_file
def test_without_paper_compat_a_layer_has_its_share_of_the_stored_rate_of_the_head() -> None:
    stored = _stored()
    recipe = _recipe(paper_compat=False, batch_size=stored["global_batch"], epochs=stored["epochs"])
    model = narrow_classifier((2, 2, 6, 2))
    shares = {group["name"]: group["lr_scale"] for group in recipe.groups(model)}
    rates = rates_at(recipe, model, stored["steps_per_epoch"], [int(step) for step in stored["lr_at_step"]])
    for step, theirs in stored["lr_at_step"].items():
        for name, found in rates[int(step)].items():
            assert found == pytest.approx(shares[name] * theirs["layer_13_decay"], rel=TOLERANCE), (step, name)
    first, last = (next(iter(stored["lr_at_step"])), list(stored["lr_at_step"])[-1])
    # Warm-up begins, and the cosine ends, where the published code does: there the share counts once in both.
    assert rates[int(first)] == pytest.approx(stored["lr_at_step"][first], rel=TOLERANCE)
    assert rates[int(last)] == pytest.approx(stored["lr_at_step"][last], rel=1e-6)


@pytest.mark.parametrize(("paper_compat", "rises"), [(True, True), (False, False)])
def test_the_lowest_layers_of_a_deep_network_rise_after_the_warm_up_only_as_published(
    paper_compat: bool, rises: bool
) -> None:
    recipe = _recipe(paper_compat=paper_compat)
    rates = rates_at(recipe, narrow_classifier((2, 2, 18, 2)), 50, [1000, 3000, 4999])
    stem = [rates[step]["layer_0_decay"] for step in (1000, 3000, 4999)]
    assert (stem == sorted(stem)) == rises
    head = [rates[step]["layer_25_decay"] for step in (1000, 3000, 4999)]
    assert head == sorted(head, reverse=True)


def test_rates_grow_with_the_batch() -> None:
    small, large = (
        rates_at(_recipe(paper_compat=True, batch_size=size), narrow_classifier((1, 1, 1, 1)), 50, [1500])
        for size in (256, 512)
    )
    assert large[1500] == pytest.approx({name: 2 * rate for name, rate in small[1500].items()}, rel=TOLERANCE)


def test_training_really_has_these_rates_at_every_step() -> None:
    full = {"layer_decay": 0.5, "schedule": {"warmup_epochs": 1, "paper_compat": True}}
    recipe = Full(Finetune(epochs=3, batch_size=4, full=full))
    model = narrow_classifier((1, 1, 1, 1))
    expected = rates_at(recipe, model, 2, list(range(6)))
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
