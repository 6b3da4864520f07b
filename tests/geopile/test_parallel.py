"""Work spread over processes comes back in order, and a killed worker is a clear line."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
