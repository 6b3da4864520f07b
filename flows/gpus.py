"""One training a GPU: a place in Prefect's limit `gpu`, shared by all workers, and a GPU of this machine for itself."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

LIMIT = "gpu"  # `prefect gcl create gpu --limit N`, N GPUs in all; where it does not exist only this machine's count
TRAINING = frozenset({"teacher", "pretrain", "finetune"})  # the stages that take a GPU
VISIBLE = "CUDA_VISIBLE_DEVICES"
LOOK_EVERY_S = 2.0


def takes_gpu(stage: str, folder: Path) -> bool:
    """Whether a stage of this workspace trains on a GPU of this machine."""
    if stage.partition("@")[0] not in TRAINING or not gpus():
        return False
    params = folder / "params.yaml"
    read = yaml.safe_load(params.read_text(encoding="utf-8")) if params.exists() else None
    return not isinstance(read, dict) or read.get("device") != "cpu"


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


@contextmanager
def one_gpu() -> Iterator[dict[str, str]]:
    """Wait for a free GPU and hold it; yields the variables that show a process no other."""
    from prefect.concurrency.sync import concurrency

    with ExitStack() as held:
        # A server that is away for a moment must not end a training that runs.
        held.enter_context(concurrency(LIMIT, occupy=1, raise_on_lease_renewal_failure=False))
        while (gpu := _take(held)) is None:
            time.sleep(LOOK_EVERY_S)
        yield {VISIBLE: gpu}


def _take(held: ExitStack) -> str | None:
    """A GPU that no other flow of this PREFECT_HOME holds; the system gives it back when the flow's process dies."""
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    for gpu in gpus():
        file = (home / f"gpu-{gpu.replace('/', '_')}.lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        held.enter_context(file)
        return gpu
    return None
