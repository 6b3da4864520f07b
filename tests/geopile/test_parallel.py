"""Work spread over processes comes back in order, and a killed worker is a clear line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfm.errors import GfmError
from gfm.geopile.parallel import BATCH_BYTES, batches, ordered_map


def test_a_killed_worker_is_one_line_with_what_to_change() -> None:
    before = dict(os.environ)
    with (
        pytest.raises(GfmError, match=r"worker process was killed, .* lower geopile\.workers"),
        ordered_map(2) as map_in_order,
    ):
        list(map_in_order(os._exit, [9] * 20))
    assert dict(os.environ) == before


def test_a_killed_process_leaves_no_workers_behind() -> None:
    script = """
import os, signal
from gfm.geopile.parallel import ordered_map
def main():
    with ordered_map(2) as map_in_order:
        pids = sorted(set(map_in_order(pid_of, range(40))))
        print(*pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
def pid_of(_):
    return os.getpid()
if __name__ == "__main__":
    main()
"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "killed.py")
        file.write_text(script)
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=120)
    pids = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and pids
    deadline = time.monotonic() + 60
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # one that ended stays in Linux's table until its new parent has looked
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


def test_results_come_in_order_for_any_number_of_processes() -> None:
    words = [f"{number:x}" for number in range(50)]
    for workers in (1, 2):
        with ordered_map(workers) as map_in_order:
            assert list(map_in_order(str.upper, words)) == [word.upper() for word in words]


def test_few_large_items_are_in_flight() -> None:
    taken = []

    def items() -> Iterator[str]:
        for number in range(12):
            taken.append(number)
            yield str(number)

    with ordered_map(2) as map_in_order:
        results = map_in_order(str.upper, items(), lambda _: 100 * BATCH_BYTES)
        assert next(results) == "0"
        assert len(taken) <= 2
        assert list(results) == [str(number) for number in range(1, 12)]


def test_batches_are_bounded_by_number_and_by_bytes() -> None:
    sizes = [1, 1, 1, BATCH_BYTES, 9 * BATCH_BYTES, 1, 1]
    assert list(batches(sizes, 2, int)) == [[1, 1], [1], [BATCH_BYTES], [9 * BATCH_BYTES], [1, 1]]
    assert list(batches(sizes, 3)) == [sizes[:3], sizes[3:6], sizes[6:]]
