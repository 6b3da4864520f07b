"""Parameters sharded over real processes: losses, checkpoints and encoder are those of an ordinary training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from gfm.models.encoder import load_encoder
from gfm.pretraining.data import FixedBatches
from gfm.pretraining.networks import load_networks
from gfm.pretraining.recipes import build_recipe
from gfm.pretraining.run import pretrain
from gfm.pretraining.throughput import shapes_only

GFM = Path("models/encoders/gfm")
CHECKPOINTS = Path("checkpoints/gfm")
ONE = [str(Path(sys.executable).parent / "gfm"), "pretrain", "gfm"]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TWO = [*LAUNCH, "--no-python", *ONE]
LONGEST_S = 240
FULL = {"sharding": "full"}
FAST = {"recipe": "gfm-fast", "cached_crops": 2, "decoder": {"width": 16, "depth": 1, "heads": 2}}
CLIPPED = {"clip_grad": 0.1}  # of norms that are above it in every step
# Runs the command with a change to it, in each process.
CHANGED = "import sys\nfrom gfm.cli import main\n{change}\nsys.argv = ['gfm', 'pretrain', 'gfm']\nmain()\n"
KEPT = "from gfm.pretraining.trainer import TimedCheckpoint\nTimedCheckpoint.remove = lambda self: None"


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A command whose processes are all gone in the end; torchrun's are in sessions of their own."""
    process = subprocess.Popen(command, env=environment, text=True, **settings)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a command and all that it has started."""
    try:
        found = psutil.Process(process.pid)
        family = [found, *found.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        if member.is_running():
            member.kill()
    psutil.wait_procs(family, timeout=10)
    process.wait(timeout=10)


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    with started(command, environment) as process:
        assert process.wait(timeout=LONGEST_S) == 0


def losses() -> list[list[float]]:
    """Epoch, step, learning rate and losses of each epoch."""
    lines = [line.split(",") for line in (GFM / "history.csv").read_text().splitlines()]
    return [[float(value) for value in line] for line in lines[1:]]


def assert_same_curve(other: list[list[float]], within: float = 1e-4) -> None:
    for own, one in zip(losses(), other, strict=True):
        assert own == pytest.approx(one, abs=within)


def weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def latest_step() -> int:
    files = sorted(CHECKPOINTS.glob("step-*.ckpt"))
    return int(files[-1].stem.removeprefix("step-")) if files else 0


def changed(change: str) -> list[str]:
    """The launch with two processes that makes a change to the program first."""
    Path("changed.py").write_text(CHANGED.format(change=change))
    return [*LAUNCH, "changed.py"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, FAST], ids=["gfm", "gfm-fast"])
def test_the_loss_curve_is_that_of_one_process_and_the_encoder_is_plain(
    uneven, teacher, environment, write_params, without_drop_path, recipe
):
    """Gradients are clipped, and one process has a validation batch fewer."""
    settings = recipe | CLIPPED
    write_params(pretrain=settings, **without_drop_path)
    run(ONE, environment)
    alone, learned = losses(), weights()
    write_params(pretrain=settings | FULL, **without_drop_path)
    run(TWO, environment)
    assert_same_curve(alone)
    for name, weight in weights().items():
        torch.testing.assert_close(weight, learned[name], atol=1e-5, rtol=0)
    images = torch.rand(2, 3, 64, 64)
    assert all(torch.isfinite(level).all() for level in load_encoder(GFM, image_px=64, seed=0)(images))
    assert (GFM / "neighbours.png").exists() and (GFM / "reconstructions.png").exists()
    assert json.loads((GFM / "run.json").read_text())["metrics"]["gflops_per_image"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "within"),
    [
        ({"accumulate": 2, "checkpoint_activations": True}, 1e-4),
        (FAST | {"checkpoint_activations": True}, 1e-4),
        ({"precision": "bf16-mixed"}, 2e-2),
    ],
    ids=["parts and recomputed activations", "gfm-fast, recomputed activations", "bf16-mixed"],
)
def test_less_memory_in_other_ways_goes_together(
    teacher, environment, write_params, without_drop_path, settings, within
):
    write_params(pretrain={"epochs": 2} | settings, **without_drop_path)
    run(ONE, environment)
    alone = losses()
    write_params(pretrain={"epochs": 2} | settings | FULL, **without_drop_path)
    run(TWO, environment)
    assert_same_curve(alone, within)


@pytest.mark.slow
def test_a_checkpoint_is_that_of_an_ordinary_training(teacher, environment, write_params, without_drop_path):
    """The same names, numbers, shapes and groups as DDP's, and the same weights and moments to rounding."""
    found, sizes = [], []
    for sharding in ("none", "full"):
        write_params(pretrain={"epochs": 2, "checkpoint_steps": 5, "sharding": sharding} | CLIPPED, **without_drop_path)
        run(changed(KEPT), environment)
        file = CHECKPOINTS / "step-000000005.ckpt"
        assert zipfile.is_zipfile(file)
        sizes.append(file.stat().st_size)
        found.append(torch.load(file, weights_only=True))
        for file in CHECKPOINTS.glob("*.ckpt"):
            file.unlink()
    ordinary, sharded = found
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    assert sharded["state_dict"].keys() == ordinary["state_dict"].keys()
    for name, tensor in sharded["state_dict"].items():
        torch.testing.assert_close(tensor, ordinary["state_dict"][name], atol=1e-5, rtol=0)
    (own,), (other,) = sharded["optimizer_states"], ordinary["optimizer_states"]
    assert own["param_groups"] == other["param_groups"]
    assert own["state"].keys() == other["state"].keys()
    for number, kept in own["state"].items():
        for name, value in kept.items():
            torch.testing.assert_close(value, other["state"][number][name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_killed_a_launch_ends_with_the_same_weights(teacher, environment, write_params):
    """SIGKILL to all of its processes, twice; stochastic depth is on. Weights and losses are equal to the bit."""
    write_params(pretrain={"epochs": 6, "checkpoint_steps": 1} | FULL)
    run(TWO, environment)
    learned, history = weights(), losses()
    for wanted in (3, 9):
        with started(TWO, environment) as process:
            until = time.monotonic() + LONGEST_S
            while latest_step() < wanted:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
    reached = latest_step()
    run(TWO, environment)
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == reached
    assert all(torch.equal(weight, learned[name]) for name, weight in weights().items())
    assert losses() == history


@pytest.mark.slow
def test_a_sharded_training_goes_on_in_one_process_and_an_ordinary_one_sharded(
    teacher, environment, write_params, without_drop_path
):
    stopped = {"epochs": 6, "budget": {"hours": 1e-9}}
    write_params(pretrain={"epochs": 6}, **without_drop_path)
    run(ONE, environment)
    alone = losses()
    for first, then in ((TWO, ONE), (ONE, TWO)):
        write_params(pretrain=stopped | FULL, **without_drop_path)
        with started(first, environment, stderr=subprocess.PIPE) as process:
            assert "its budget.hours = 1e-09 is used" in process.communicate(timeout=LONGEST_S)[1]
        reached = latest_step()
        assert reached > 0
        write_params(pretrain={"epochs": 6} | FULL, **without_drop_path)
        run(then, environment)
        assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == reached
        assert_same_curve(alone)


@pytest.mark.slow
def test_a_weight_that_is_infinite_in_one_process_ends_all_of_them(teacher, environment, write_params):
    write_params(pretrain={"checkpoint_steps": 1} | FULL)
    spoil = """
import torch
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.sharding import of_this_process

def lr_scheduler_step(self, scheduler, metric):
    scheduler.step()
    if self.global_step == 3 and self.global_rank == 1:
        with torch.no_grad():
            of_this_process(self.model.decoder[0].weight).fill_(torch.inf)

RecipeModule.lr_scheduler_step = lr_scheduler_step
"""
    with started(changed(spoil), environment, stderr=subprocess.PIPE) as process:
        told = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode != 0
    assert told.count("gfm: pretrain.gfm: weights became infinite or no number by step 3; lower") == 2
    assert latest_step() == 2


@pytest.mark.slow
def test_a_process_holds_half_of_parameters_and_optimiser(teacher, environment, write_params):
    write_params(pretrain=FULL)
    count = """
import json
from pathlib import Path
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.sharding import of_this_process

def on_train_end(self):
    (optimiser,) = self.trainer.optimizers
    held = [weight for weight in self.parameters() if weight.requires_grad]
    held += [value for kept in optimiser.state.values() for value in kept.values() if value.ndim]
    counts = [sum(tensor.numel() for tensor in held), sum(of_this_process(tensor).numel() for tensor in held)]
    Path(f"held-{self.global_rank}.json").write_text(json.dumps(counts))

RecipeModule.on_train_end = on_train_end
"""
    run(changed(count), environment)
    (whole, one), (_, other) = (json.loads(Path(f"held-{rank}.json").read_text()) for rank in (0, 1))
    assert one + other == whole
    assert one == pytest.approx(whole / 2, rel=0.05)


def test_one_process_trains_as_without_sharding(teacher, make_params):
    pretrain(make_params(), "gfm")
    learned = weights()
    pretrain(make_params(pretrain=FULL), "gfm")
    assert all(torch.equal(weight, learned[name]) for name, weight in weights().items())


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"compile": True}, "compile"),
        ({"ema_decay": 0.9}, "ema_decay"),
        ({"probe": {"sources": ["scenes"]}}, "probe"),
        ({"precision": "16-mixed"}, "precision = 16-mixed"),
    ],
)
def test_what_sharding_does_not_go_with_is_refused(make_params: Callable[..., Any], setting, named):
    message = rf"pretrain\.gfm\.sharding = full does not work together with pretrain\.gfm\.{named}; leave one of them"
    with pytest.raises(ValidationError, match=message):
        make_params(pretrain=FULL | setting)


@pytest.mark.parametrize("rows", range(1, 12))
def test_even_batches_are_all_rows_once_and_equally_many(rows):
    shares = [FixedBatches(rows, batch_size=2, rank=rank, processes=3, even=True) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    own = [row for share in shares for batch in share.batches[: share.own] for _, row in batch]
    assert sorted(own) == list(range(rows))


def test_a_recipes_shapes_are_a_copy_that_holds_nothing(teacher, make_params):
    params = make_params()
    recipe = build_recipe(params.pretrain["gfm"], load_networks(params, "gfm"))
    shapes = shapes_only(recipe)
    assert {tensor.device.type for tensor in shapes.model.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in recipe.model.state_dict().values()} == {"cpu"}
