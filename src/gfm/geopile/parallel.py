"""Map functions over many items by processes, results in order, with a bounded number in flight."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from threading import Thread
from typing import Any, Protocol, TypeVar

import cv2

from gfm.errors import GfmError

Item = TypeVar("Item")
Result = TypeVar("Result")
Awaited = TypeVar("Awaited", covariant=True)

IN_FLIGHT = 4  # items a worker; what is in flight is all that memory holds
BATCH_BYTES = 8 << 20  # that items should carry at most, so that a worker's four are little
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GDAL_NUM_THREADS")


class OrderedMap(Protocol):
    """`function` of every item, in order of the items; function, items and results are picklable.

    `size` says how many bytes an item carries: few items are in flight while they are large.
    """

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int] = ..., /
    ) -> Iterator[Result]: ...


class Pending(Protocol[Awaited]):
    """A result to come, of this machine's processes or a cluster's."""

    def result(self) -> Awaited:
        """Wait for it; raises what the function raised."""

    def cancel(self) -> object:
        """Give it up."""


def nothing(_: object) -> int:
    """The size of items that carry no bytes to speak of."""
    return 0


def batches(items: Iterable[Item], most: int, size: Callable[[Item], int] = nothing) -> Iterator[list[Item]]:
    """Runs of at most `most` items that carry at most BATCH_BYTES together, or of one that carries more."""
    batch: list[Item] = []
    carried = 0
    for item in items:
        if batch and (len(batch) == most or carried + size(item) > BATCH_BYTES):
            yield batch
            batch, carried = [], 0
        batch.append(item)
        carried += size(item)
    if batch:
        yield batch


def in_this_process(
    function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int] = nothing, /
) -> Iterator[Result]:
    """The map of one process."""
    return map(function, items)


@contextmanager
def ordered_map(workers: int) -> Iterator[OrderedMap]:
    """A map that runs in this process for one worker, else in `workers` processes kept until the block ends.

    The map raises GfmError when a worker is killed (for example for lack of memory).
    """
    if workers <= 1:
        yield in_this_process
        return
    # Spawned, not forked: threads of GDAL and OpenCV do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool,
    ):

        def pooled(
            function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int] = nothing, /
        ) -> Iterator[Result]:
            pickled = pickle.dumps(function)  # once: the parameters are in it
            try:
                yield from in_order(lambda item: pool.submit(_call, pickled, item), items, size, IN_FLIGHT * workers)
            except BrokenProcessPool:
                fix = "most likely for lack of memory; lower geopile.workers"
                raise GfmError(f"a worker process was killed, {fix}") from None

        yield pooled


def in_order(
    submit: Callable[[Item], Pending[Result]], items: Iterable[Item], size: Callable[[Item], int], most: int
) -> Iterator[Result]:
    """Results of `submit`ted items in their order, with at most `most` items and `most` * BATCH_BYTES in flight."""
    waiting: deque[tuple[Pending[Result], int]] = deque()
    try:
        for item in items:
            while waiting and sum(carried for _, carried in waiting) + size(item) > most * BATCH_BYTES:
                yield waiting.popleft()[0].result()
            waiting.append((submit(item), size(item)))
            if len(waiting) >= most:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()


def _begin() -> None:
    """In a new worker."""
    cv2.setNumThreads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed tells its workers nothing: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(pickled: bytes, item: Item) -> Any:
    """In a worker: the function of a map, which was pickled once for all items."""
    return _unpickled(pickled)(item)


@lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = pickle.loads(pickled)  # noqa: S301 - from the process that started this one
    return function


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers inherit the environment; more threads than cores only get in each other's way."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
