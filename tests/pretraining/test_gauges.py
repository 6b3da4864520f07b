"""Gauges: operations counted right and without a trace, and the values where a user looks for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from gfm.pretraining import gauges
from gfm.pretraining.batch import Batch
from gfm.pretraining.data import TimedLoader
from gfm.pretraining.gauges import Gauges
from gfm.pretraining.networks import load_networks
from gfm.pretraining.recipes import build_recipe
from gfm.pretraining.run import pretrain
from gfm.pretraining.throughput import flops_per_image, matmul_peak
from gfm.tracking.carbon import Energy, Meter
from gfm.tracking.runs import Run

GFM = Path("models/encoders/gfm")


def _batch(images: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (images, 3, 64, 64), dtype=torch.uint8, generator=generator)
    mask = torch.tensor([[[True, True], [True, False]]]).repeat(images, 1, 1)
    return Batch(pixels, torch.arange(images), torch.zeros(images, dtype=torch.bool), mask, None)


def test_operations_of_a_known_network_are_counted_as_by_hand(folder, make_params):
    """A plain convolution of a 64 px image: 2 * k * k * in * out * H * W, once forward and twice backward."""
    recipe = build_recipe(make_params(pretrain={"recipe": "simmim"}).pretrain["gfm"], _networks(make_params))
    counted = flops_per_image(recipe, _batch(), nullcontext())
    more = flops_per_image(recipe, _batch(1), nullcontext())
    assert counted == more, "an image costs the same in any batch"
    # The decoder alone: a 1x1 convolution from 64 channels to 32 * 32 * 3 pixels on a 2 x 2 map.
    decoder = 2 * 64 * 3072 * 4
    assert counted > 3 * decoder
    with torch.no_grad():
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as forward:
            recipe.losses(_batch(1))
    embedding = 2 * 4 * 4 * 3 * 8 * 16 * 16  # whose input needs no gradient
    assert counted == 3 * forward.get_total_flops() - embedding


def _networks(make_params):
    return load_networks(make_params(pretrain={"recipe": "simmim"}), "gfm")


@pytest.mark.parametrize("network", [None, {"name": "mobilenetv2_035", "image_px": 64, "args": {}}])
def test_counting_leaves_no_trace(folder, make_params, network):
    parts = {"student": {"architecture": network}} if network else {}
    params = make_params(pretrain={"recipe": "simmim"}, **parts)
    recipe = build_recipe(params.pretrain["gfm"], load_networks(params, "gfm"))
    before = {key: value.clone() for key, value in recipe.model.state_dict().items()}
    state = torch.get_rng_state()
    assert flops_per_image(recipe, _batch(), nullcontext()) > 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in recipe.model.state_dict().items())
    assert all(parameter.grad is None for parameter in recipe.model.parameters())


def test_activations_computed_twice_count_once(folder, make_params):
    params = make_params(pretrain={"recipe": "simmim"})
    recipe = build_recipe(params.pretrain["gfm"], load_networks(params, "gfm"))
    plain = flops_per_image(recipe, _batch(), nullcontext())
    recipe.student.backbone.set_grad_checkpointing(True)
    assert flops_per_image(recipe, _batch(), nullcontext()) > plain
    assert flops_per_image(recipe, _batch(), nullcontext(), checkpointed=True) == plain
    assert recipe.student.backbone.layers[0].grad_checkpointing


def test_the_peak_is_a_rate_of_this_device():
    assert 1e8 < matmul_peak(torch.device("cpu"), "32-true") < 1e14


def test_waiting_for_a_loader_is_counted(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("gfm.pretraining.data.time.perf_counter", lambda: float(next(clock)))
    loader = TimedLoader([1, 2, 3], batch_size=1)
    assert [int(batch) for batch in loader] == [1, 2, 3]
    assert loader.waited_s == 4.0, "three batches, and the end"


def test_the_gauges_stand_in_run_json_and_in_the_model_card(teacher, make_params):
    pretrain(make_params(), "gfm")
    metrics = json.loads((GFM / "run.json").read_text())["metrics"]
    assert metrics["samples_per_s"] > 0 and 0 < metrics["data_wait_share"] < 1
    assert 0 < metrics["mfu"] < 1 and metrics["peak_memory_gb"] > 0.01
    assert metrics["mfu"] == pytest.approx(
        metrics["samples_per_s"] * metrics["gflops_per_image"] / metrics["peak_tflops"] / 1e3, abs=1e-3
    )
    assert not any("co2" in name or "kwh" in name for name in metrics), "nothing was measured"
    card = (GFM / "README.md").read_text()
    assert "| mfu |" in card and "model FLOPs utilisation" in card


def test_gauges_are_logged_while_training_and_energy_with_them(teacher, make_params, monkeypatch):
    logged: list[tuple[int | None, dict[str, float]]] = []

    class Watched(Run):
        def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
            logged.append((step, dict(values)))

    def so_far(self: Meter) -> Energy:
        return Energy(2e-3, 1e-3, 1.0, "made up", "estimated", "FRA", 0.5)

    monkeypatch.setattr(gauges, "LOG_EVERY_S", 0.0)
    monkeypatch.setattr(Meter, "so_far", so_far)
    init = Gauges.__init__
    monkeypatch.setattr(
        Gauges, "__init__", lambda self, recipe, spending, run, **more: init(self, recipe, spending, Watched(), **more)
    )
    pretrain(make_params(), "gfm")
    live = {step: values for step, values in logged if "mfu" in values}
    assert list(live) == list(range(2, 13))
    assert live[12]["kg_co2eq_so_far"] == 1e-3 and live[12]["kwh_so_far"] == 2e-3
    assert live[12]["kg_co2eq_per_1000_samples"] == pytest.approx(1e-3 / 48 * 1000)
    assert json.loads((GFM / "run.json").read_text())["metrics"]["kg_co2eq_per_1000_samples"] == pytest.approx(
        1e-3 / 0.048
    )


@pytest.mark.parametrize("recipe", ["simmim-continual", "distill", "gfm-fast"])
def test_every_recipe_has_operations_to_count(teacher, make_params, recipe):
    more = {"cached_crops": 2, "decoder": {"width": 16, "depth": 1, "heads": 2}} if recipe == "gfm-fast" else {}
    pretrain(make_params(pretrain={"recipe": recipe, "epochs": 1, **more}), "gfm")
    assert json.loads((GFM / "run.json").read_text())["metrics"]["gflops_per_image"] > 0
