"""Recomputed activations and compiled models learn what plain ones learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gfm.pretraining.networks import load_networks
from gfm.pretraining.recipes import build_recipe
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")
FAST = {"recipe": "gfm-fast", "cached_crops": 2, "decoder": {"width": 16, "depth": 1, "heads": 2}}


def _losses() -> list[float]:
    lines = (GFM / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("train_loss")
    return [float(line.split(",")[column]) for line in lines[1:]]


@pytest.mark.parametrize("run", [{}, FAST], ids=["gfm", "gfm-fast"])
def test_recomputed_activations_give_the_same_loss_curve(teacher, make_params, run):
    """Stochastic depth included: what is recomputed draws the same."""
    pretrain(make_params(pretrain=run), "gfm")
    plain = _losses()
    pretrain(make_params(pretrain=run | {"checkpoint_activations": True}), "gfm")
    assert _losses() == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
def test_a_compiled_training_follows_the_plain_one(teacher, make_params, without_drop_path):
    pretrain(make_params(pretrain={"epochs": 2}, **without_drop_path), "gfm")
    plain = _losses()
    pretrain(make_params(pretrain={"epochs": 2, "compile": True}, **without_drop_path), "gfm")
    assert _losses() == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("recipe", ["gfm", "simmim", "distill", "gfm-fast"])
def test_a_recipes_model_is_one_graph(teacher, make_params, recipe):
    """`fullgraph` raises where a graph breaks; the graph runs eagerly, which needs no compiler."""
    params = make_params(pretrain=FAST if recipe == "gfm-fast" else {"recipe": recipe})
    built = build_recipe(params.pretrain["gfm"], load_networks(params, "gfm"))
    images = torch.rand(2, 3, 64, 64)
    mask = torch.tensor([[[True, True], [True, False]]]).repeat(2, 1, 1)
    feature = torch.rand(2, 64)
    arguments = {
        "simmim": (images, mask),
        "distill": (images,),
        "gfm": (images, mask),
        "gfm-fast": (images, mask, feature),
    }
    torch.compiler.reset()
    built.model.eval()
    plain = built.model(*arguments[recipe])
    compiled = torch.compile(built.model, fullgraph=True, backend="eager")(*arguments[recipe])
    for one, other in zip(_tensors(plain), _tensors(compiled), strict=True):
        torch.testing.assert_close(one, other)
    built.model.train()
    torch.compile(built.model, fullgraph=True, backend="eager")(*arguments[recipe])


def _tensors(outputs: object) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = [getattr(outputs, name) for name in outputs.__dataclass_fields__]  # type: ignore[attr-defined]
    return [tensor for value in values for tensor in _tensors(value)]
