"""Real processes: killed at any moment they end as undisturbed ones, and several together never wait for ever."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

GFM = Path("models/encoders/gfm")
COMMAND = [str(Path(sys.executable).parent / "gfm"), "pretrain", "gfm"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--no-python"]
LONGEST_S = 240

pytestmark = pytest.mark.slow


def _weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def _losses() -> list[tuple[float, float]]:
    lines = (GFM / "history.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    return [(float(row["train_loss"]), float(row["val_loss"])) for row in rows]


def _latest_step() -> int:
    files = sorted(Path("checkpoints/gfm").glob("step-*.ckpt"))
    return int(files[-1].stem.removeprefix("step-")) if files else 0


def test_killed_again_and_again_a_training_ends_with_the_same_weights(teacher, environment, write_params):
    """SIGKILL at random moments, four times in one training of 40 steps."""
    write_params(pretrain={"epochs": 10, "checkpoint_steps": 1, "ema_decay": 0.9, "workers": 1})
    subprocess.run(COMMAND, env=environment, check=True, timeout=LONGEST_S)
    whole, history = _weights(), (GFM / "history.csv").read_text()
    draw = random.Random(20)
    reached = 0
    for _ in range(4):
        process = subprocess.Popen(COMMAND, env=environment, start_new_session=True)
        wanted = reached + draw.randint(1, 8)
        until = time.monotonic() + LONGEST_S
        while _latest_step() < wanted:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        reached = _latest_step()
    subprocess.run(COMMAND, env=environment, check=True, timeout=LONGEST_S)
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == reached > 0
    assert all(torch.equal(whole[key], _weights()[key]) for key in whole)
    assert (GFM / "history.csv").read_text() == history


def test_two_nodes_of_one_process_give_the_loss_curve_of_one(
    uneven, teacher, environment, write_params, without_drop_path
):
    """The launch lines of docs/distributed.md, two processes standing for two nodes; their shards are uneven."""
    probe = {"sources": ["scenes"], "every_epochs": 1}
    write_params(pretrain={"probe": probe, "checkpoint_steps": 2}, **without_drop_path)
    subprocess.run(COMMAND, env=environment, check=True, timeout=LONGEST_S)
    alone = _losses()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "gfm", "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", f"127.0.0.1:{port}", *COMMAND]
    nodes = [subprocess.Popen(launch, env=environment) for _ in range(2)]
    try:
        assert [node.wait(timeout=LONGEST_S) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    for one, other in zip(alone, _losses(), strict=True):
        assert other == pytest.approx(one, abs=1e-4)
    assert len((GFM / "probes.csv").read_text().splitlines()) == 5


def test_two_processes_stop_together_at_a_budget_and_any_number_goes_on(teacher, environment, write_params):
    """They look at clock and meter every 20 steps; a second try with the same budget stops before its first step."""
    launch = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *COMMAND]
    write_params(pretrain={"epochs": 6, "budget": {"hours": 1e-9}})
    for _ in range(2):
        done = subprocess.run(launch, env=environment, timeout=LONGEST_S, capture_output=True, text=True)
        assert done.returncode != 0
        assert "gfm: pretrain.gfm: stopped at step 20 of 24, its budget.hours = 1e-09 is used" in done.stderr
        assert _latest_step() == 20
    write_params(pretrain={"epochs": 6})
    subprocess.run(COMMAND, env=environment, check=True, timeout=LONGEST_S)
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == 20
    assert len(_losses()) == 6


def test_a_training_ended_by_sigterm_says_so_and_is_no_success(teacher, environment, write_params):
    write_params(pretrain={"epochs": 200, "checkpoint_steps": 1})
    process = subprocess.Popen(COMMAND, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + LONGEST_S
    while _latest_step() < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.terminate()
    _, told = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert "gfm: stopped by SIGTERM before its end; run the same command again" in told
