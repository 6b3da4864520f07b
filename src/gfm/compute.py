"""The device that trainings run on, and how many CPU threads they take."""

from __future__ import annotations

import os
from typing import Literal

from gfm.errors import GfmError

Device = Literal["auto", "cpu", "cuda"]


def use_device(device: Device) -> Literal["cpu", "gpu"]:
    """Lightning's accelerator for `device`, with torch's CPU threads and arithmetic set.

    Raises GfmError where a GPU is asked for and torch finds none.
    """
    import torch

    # Before the first threads begin, which inherit it. Swin's -100 between shifted windows becomes numbers so small
    # that a CPU takes many times as long for them; a step of Swin-T at 192 px took 1.2 to 1.4 times as long.
    torch.set_flush_denormal(True)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpu_threads())
    if device == "cuda" and not torch.cuda.is_available():
        raise GfmError("device = cuda, but torch finds no GPU; set device to auto or cpu, or mend the driver")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


def cpu_threads() -> int:
    """All cores but one where there are three or more.

    Torch's threads wait for the slowest at every operation: with as many threads as cores, any other process on the
    machine made small networks up to ten times slower; with one fewer, training alone lost under a tenth.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores - 1 if cores >= 3 else cores
