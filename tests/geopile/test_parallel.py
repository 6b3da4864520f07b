"""Work spread over processes comes back in order, and a killed worker is a clear line."""

from __future__ import annotations

import os

import pytest

from gfm.errors import GfmError
from gfm.geopile.parallel import ordered_map


def test_a_killed_worker_is_one_line_with_what_to_change() -> None:
    before = dict(os.environ)
    with (
        pytest.raises(GfmError, match=r"worker process was killed, .* lower geopile\.workers"),
        ordered_map(2) as map_in_order,
    ):
        list(map_in_order(os._exit, [9] * 20))
    assert dict(os.environ) == before


def test_results_come_in_order_for_any_number_of_processes() -> None:
    words = [f"{number:x}" for number in range(50)]
    for workers in (1, 2):
        with ordered_map(workers) as map_in_order:
            assert list(map_in_order(str.upper, words)) == [word.upper() for word in words]
