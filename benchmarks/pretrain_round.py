"""One round of one row of `benchmarks/pretrain.py`, in a process of its own, so that no row hides another's memory.

    python benchmarks/pretrain_round.py SPEC.json RESULT.json

It trains as `gfm pretrain` does (the same networks, recipe, cache, Lightning trainer and loader) for a few steps in the
working folder that the specification names, and writes what it measured. Times are in seconds, memory in MiB.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gfm.lightning_progress import LightningProgress
from gfm.models.distill import teacher_feature
from gfm.models.tap import TapPoint, find_tap
from gfm.params import FollowsTeacher, Params
from gfm.pretraining import run as product
from gfm.pretraining.batch import Batch, collate
from gfm.pretraining.data import CropDataset, make_loader
from gfm.pretraining.ema import WeightAverage
from gfm.pretraining.job import Job
from gfm.pretraining.networks import load_networks
from gfm.pretraining.recipes import Networks, Recipe, build_recipe
from gfm.pretraining.teacher_cache import FOLDER, TeacherCache
from gfm.pretraining.trainer import make_trainer

PHASES = ("data", "teacher", "forward", "backward", "optimiser")
COUNTED = 2  # images that FLOPs are counted on; each costs the same
RAPL = Path("/sys/class/powercap")


class EnergyCounters:
    """The hardware's own energy counters: NVML's of the GPU in use, RAPL's of the CPU packages. Never an estimate."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = _gpu_counter(device) if device.type == "cuda" else None
        self._packages = [
            folder
            for folder in sorted(RAPL.glob("intel-rapl:*"))
            if re.fullmatch(r"intel-rapl:\d+", folder.name)
            and (folder / "name").read_text(encoding="utf-8").startswith("package")
            and os.access(folder / "energy_uj", os.R_OK)
        ]
        parts = [name for name, found in (("GPU", self._gpu), ("CPU packages", self._packages)) if found]
        self.what = " + ".join(parts) or None

    def read(self) -> list[int]:
        """Every counter, in microjoules."""
        found = [] if self._gpu is None else [self._gpu()]
        return found + [int((folder / "energy_uj").read_text(encoding="utf-8")) for folder in self._packages]

    def joules(self, before: list[int], after: list[int]) -> float | None:
        """What was used between two readings; None where nothing can be read."""
        if self.what is None:
            return None
        ranges = [int((folder / "max_energy_range_uj").read_text(encoding="utf-8")) for folder in self._packages]
        ranges = [0] * (len(before) - len(ranges)) + ranges
        # A RAPL counter that has passed its range begins again.
        spent = (b - a if b >= a else b - a + whole for a, b, whole in zip(before, after, ranges, strict=True))
        return sum(spent) / 1e6


def _gpu_counter(device: torch.device) -> Callable[[], int] | None:
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # refused by cards that have no counter
        return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1000
    return None


class StepTimer(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Times `steps` optimiser steps after `warmup`, and their phases.

    On an accelerator the phases come from `steps` more, each phase waited for, and the rate from steps that run as
    they would without a clock.
    """

    def __init__(self, *, warmup: int, steps: int, parts: int, device: torch.device, plain_adamw: bool) -> None:
        self.warmup, self.steps, self.parts, self.device, self.plain_adamw = warmup, steps, parts, device, plain_adamw
        self.apart = device.type == "cuda"  # phases are timed apart from the rate
        self.total_steps = warmup + steps * (2 if self.apart else 1)
        self.energy = EnergyCounters(device)
        self.phases = dict.fromkeys(PHASES, 0.0)
        self.step_s = 0.0
        self.joules: float | None = None
        self._done = 0
        self._last = self._began = 0.0
        self._before: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.plain_adamw:
            for group in trainer.optimizers[0].param_groups:
                group["fused"] = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._mark("data")

    def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        self._mark("forward")

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        self._mark("backward")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._mark("optimiser")
        if (batch_idx + 1) % self.parts:
            return
        self._done += 1
        if self._done == self.warmup:
            wait(self.device)
            self._before = self.energy.read()
            self._began = self._last = time.perf_counter()
        elif self._done == self.warmup + self.steps:
            wait(self.device)
            self._last = time.perf_counter()
            self.step_s = (self._last - self._began) / self.steps
            self.joules = self.energy.joules(self._before, self.energy.read())

    def _mark(self, phase: str) -> None:
        """Add the time since the last mark to a phase."""
        first = self.warmup + (self.steps if self.apart else 0)
        if not first <= self._done < first + self.steps:
            return
        wait(self.device)
        now = time.perf_counter()
        self.phases[phase] += (now - self._last) / self.steps
        self._last = now


class Unreported:
    """Stands for a tracked run that nobody looks at."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Take an epoch's row."""


def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Train as specified and say what it took."""
    before_mb = memory_mb("VmRSS")
    params = Params.model_validate(spec["params"])
    (name,) = params.pretrain
    job = Job.prepare(params, name)
    run = job.run
    networks = load_networks(params, name)
    average = [WeightAverage(networks.student, run.ema_decay)] if run.ema_decay else []
    recipe = build_recipe(run, networks)
    if spec["contiguous"]:
        recipe.model.to(memory_format=torch.contiguous_format)
    module = product.build_module(job, recipe, Unreported())  # type: ignore[arg-type]
    device = torch.device("cuda" if params.device != "cpu" and torch.cuda.is_available() else "cpu")
    timer = StepTimer(
        warmup=spec["warmup"],
        steps=spec["steps"],
        parts=run.accumulate,
        device=device,
        plain_adamw=spec["plain_adamw"],
    )
    trainer = make_trainer(
        params.device,
        steps=timer.total_steps,
        steps_per_epoch=job.batches.steps_per_epoch,
        progress=LightningProgress(name, batch_size=run.batch_size, total_steps=timer.total_steps),
        validates=False,
        parts=run.accumulate,
        precision=run.precision,
        gradient_clip_val=run.clip_grad,
        callbacks=[*average, timer],
    )
    cached = isinstance(run, FollowsTeacher) and run.cached_crops > 0
    features, building_s, building_j = build_cache(job, networks, trainer, timer.energy) if cached else (None, 0.0, 0.0)
    dataset = job.crops(job.train, recipe, crops=int(cached), features=features)
    trainer.fit(module, make_loader(dataset, job.batches, workers=run.workers), weights_only=True)
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else memory_mb("VmHWM")

    phases = timer.phases
    if isinstance(run, FollowsTeacher) and not cached:
        phases["teacher"] = time_teacher(job, networks, dataset, trainer, device, spec["steps"])
        phases["forward"] -= phases["teacher"]
    return {
        "step_s": timer.step_s,
        "phases": phases,
        "cache_s": building_s,
        "peak_mb": peak_mb,
        "before_mb": before_mb,
        "joules": None if timer.joules is None else timer.joules / spec["steps"] / run.batch_size,
        "cache_joules": building_j,
        "energy": timer.energy.what,
        **(count_flops(job, recipe, networks, dataset, device) if spec["count_flops"] else {}),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def build_cache(
    job: Job, networks: Networks, trainer: Trainer, energy: EnergyCounters
) -> tuple[TeacherCache, float, float | None]:
    """The teacher's features of one crop of every image; seconds and joules that an image took."""
    settings = job.run
    assert isinstance(settings, FollowsTeacher)
    shutil.rmtree(FOLDER, ignore_errors=True)  # of the round before
    few = job.train.where([row < job.run.batch_size for row in range(len(job.train))])
    product.teacher_features(job, networks, settings, "val", few, [0], trainer)  # warms up
    device = trainer.strategy.root_device
    wait(device)
    before, began = energy.read(), time.perf_counter()
    cache = product.teacher_features(job, networks, settings, "train", job.train, [0], trainer)
    seconds = time.perf_counter() - began
    joules = energy.joules(before, energy.read())
    return cache, seconds / len(job.train), None if joules is None else joules / len(job.train)


def time_teacher(
    job: Job, networks: Networks, dataset: CropDataset, trainer: Trainer, device: torch.device, repeats: int
) -> float:
    """Seconds of the teacher's part of one step, by itself: the median of some after one warm-up."""
    run = job.run
    assert isinstance(run, FollowsTeacher)
    pictures = crops_of(dataset, run.batch_size // run.accumulate).to(device).pictures
    teacher, tap = networks.the_teacher().to(device), teacher_tap(run, networks)
    ask = torch.compile(teacher_feature) if run.compile else teacher_feature
    seconds = []
    for _ in range(1 + repeats):
        wait(device)
        began = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            ask(teacher, tap, run.teacher_px, pictures)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) * run.accumulate


def count_flops(
    job: Job, recipe: Recipe, networks: Networks, dataset: CropDataset, device: torch.device
) -> dict[str, float]:
    """GFLOP an image (two a multiply-add; matrix products and convolutions): of a step, and of the teacher alone."""
    recipe.model.to(device).train()
    batch = crops_of(dataset, COUNTED).to(device)
    found = {"gflop": 0.0, "teacher_gflop": 0.0}
    # Only what runs operation by operation is counted, so nothing compiled and no fused attention.
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            recipe.losses(batch)[0].backward()  # type: ignore[no-untyped-call]
        found["gflop"] = counter.get_total_flops() / COUNTED / 1e9
        if isinstance(job.run, FollowsTeacher):
            teacher, tap = networks.the_teacher().to(device), teacher_tap(job.run, networks)
            with FlopCounterMode(display=False) as counter:
                teacher_feature(teacher, tap, job.run.teacher_px, batch.pictures)
            found["teacher_gflop"] = counter.get_total_flops() / COUNTED / 1e9
    return found


def crops_of(dataset: CropDataset, images: int) -> Batch:
    """The first epoch's crops of the first images."""
    return collate([dataset[0, row % len(dataset)] for row in range(images)])


def teacher_tap(run: FollowsTeacher, networks: Networks) -> TapPoint:
    """Where the teacher's features are taken."""
    tap, backbone = run.teacher_tap, networks.the_teacher().backbone
    return find_tap(backbone, stage=tap.stage, merged=tap.merged, key=f"{networks.key}.teacher_tap")


def memory_mb(which: str) -> float:
    """This process's memory, MiB: VmRSS now, VmHWM at its highest."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage's, this mark does not begin with the size of the process that started this one.
        return int(re.search(rf"^{which}:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.M)[1]) / 1024  # type: ignore[index]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def wait(device: torch.device) -> None:
    """Until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Read the specification, measure, write the result."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = Path(sys.argv[2]).absolute()
    os.chdir(spec["folder"])
    result.write_text(json.dumps(measure(spec)), encoding="utf-8")


if __name__ == "__main__":
    main()
