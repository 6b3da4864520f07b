"""Parameters sharded over real processes: the same losses, checkpoints and encoder as an ordinary training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfm.params import ParameterError

GFM = Path("models/encoders/gfm")
COMMAND = [str(Path(sys.executable).parent / "gfm"), "pretrain", "gfm"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", *COMMAND]
LONGEST_S = 240
FAST = {"recipe": "gfm-fast", "cached_crops": 2, "decoder": {"width": 16, "depth": 1, "heads": 2}}


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """To the end, or all of its processes are killed."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=LONGEST_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def losses() -> list[list[float]]:
    lines = [line.split(",") for line in (GFM / "history.csv").read_text().splitlines()]
    return [[float(value) for value in line] for line in lines[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, FAST], ids=["gfm", "gfm-fast"])
def test_sharded_parameters_give_the_loss_curve_of_one_process(
    uneven, teacher, environment, write_params, without_drop_path, recipe
):
    write_params(pretrain=recipe, **without_drop_path)
    run(COMMAND, environment)
    alone = losses()
    write_params(pretrain=recipe | {"sharding": "full", "checkpoint_steps": 2}, **without_drop_path)
    run(TWO, environment)
    for one, other in zip(alone, losses(), strict=True):
        assert other == pytest.approx(one, abs=1e-4)
