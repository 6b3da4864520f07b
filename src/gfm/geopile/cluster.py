"""The same ordered map over the workers of a Dask cluster, found by its scheduler's address.

Dask knows nothing of the collection: it runs the functions that a pool of processes runs, and its results are taken
in order. So the bytes are the same, as long as the workers decode with the same versions of the same packages.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from gfm.errors import GfmError
from gfm.geopile.parallel import IN_FLIGHT, Item, OrderedMap, Pending, Result, in_order, nothing
from gfm.geopile.sources.label_tables import read_label_tables
from gfm.params import LocalFile, Params

KEY = "geopile.scheduler"
ANSWERS_WITHIN_S = 10
WORKERS_WITHIN_S = 60  # a cluster that grows on demand begins with none

_runs: list[str] = []  # on a worker: the assembly that it last worked for


@contextmanager
def cluster_map(address: str, shared: Path) -> Iterator[OrderedMap]:
    """A map that runs on the workers of the Dask scheduler at `address`, which must all see the folder `shared`.

    A worker that dies has its items done again by others. GfmError, naming the parameter, where the package is
    missing, the scheduler does not answer, it gets no worker, or workers cannot do the work.
    """
    try:
        from distributed import CancelledError, Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError:
        fix = "run `pip install 'gfm[dask]'`, or set it to null"
        raise GfmError(f"{KEY}: the package distributed is not installed; {fix}") from None
    _check_protocol(address)
    try:
        client = Client(address, timeout=ANSWERS_WITHIN_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise GfmError(
            f"{KEY} = {address}: no Dask scheduler answers there within {ANSWERS_WITHIN_S} s "
            f"({' '.join(str(error).split())[:120]}); start one with `dask scheduler`, or set it to null"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
        except TimeoutError:
            fix = f"start some with `dask worker {address} --nthreads 1`"
            raise GfmError(f"{KEY} = {address}: has had no worker for {WORKERS_WITHIN_S} s; {fix}") from None
        run = uuid.uuid4().hex
        most = IN_FLIGHT * sum(client.nthreads().values())

        def distributed(
            function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int] = nothing, /
        ) -> Iterator[Result]:
            def submit(item: Item) -> Pending[Result]:
                # Not pure: a key made from an item's content would cost a pass over its bytes.
                future: Pending[Result] = client.submit(_on_worker, shared, run, function, item, pure=False)
                return future

            try:
                yield from in_order(submit, items, size, most)
            except KilledWorker as error:
                raise GfmError(
                    f"{KEY} = {address}: {error.allowed_failures + 1} workers died with the same images, most likely "
                    "for lack of memory; give workers more memory or fewer threads"
                ) from None
            except (CancelledError, CommClosedError) as error:
                raise GfmError(
                    f"{KEY} = {address}: the scheduler is gone ({type(error).__name__}); start it and run again"
                ) from None
            except (ImportError, RuntimeError) as error:
                lacking = error if isinstance(error, ImportError) else error.__cause__  # on a worker, on the scheduler
                if not isinstance(lacking, ImportError):
                    raise
                raise GfmError(
                    f"{KEY} = {address}: it runs without this gfm ({lacking}); install the same one, with the same "
                    "constraints.txt, for the scheduler and all workers"
                ) from None

        yield distributed


def on_shared_paths(params: Params) -> Params:
    """The parameters as workers on other machines can use them: a cluster's have working folders of their own."""
    if params.geopile.scheduler is None:
        return params
    raw = LocalFile(params.paths.raw.path.absolute())
    return params.model_copy(update={"paths": params.paths.model_copy(update={"raw": raw})})


def _check_protocol(address: str) -> None:
    """Refuse what a Client fails of without closing itself: it would then wait, and end in a traceback."""
    from distributed.comm.registry import get_backend
    from distributed.security import Security

    protocol = address.partition("://")[0]
    try:
        get_backend(protocol).get_connector()
    except (ImportError, TypeError, ValueError):  # TypeError: ucx, which has moved to a package of its own
        fix = "install its package (distributed-ucxx for ucx), or use tcp"
        raise GfmError(f"{KEY} = {address}: the installed distributed has no {protocol}; {fix}") from None
    if protocol == "tls" and Security().get_connection_args("client").get("ssl_context") is None:
        fix = "set distributed.comm.tls in Dask's configuration, or use tcp"
        raise GfmError(f"{KEY} = {address}: there are no certificates for tls; {fix}")


def _on_worker(shared: Path, run: str, function: Callable[[Item], Result], item: Item) -> Result:
    """Run on a worker. A worker without the shared folder must not call every file of it missing."""
    if not shared.is_dir():
        from distributed import get_worker

        raise GfmError(
            f"{KEY}: the worker {get_worker().address} sees no folder {shared}; mount it there under the same path"
        )
    if run not in _runs:  # workers outlive an assembly, and tables may have changed since
        read_label_tables.cache_clear()
        _runs[:] = [run]
    cv2.setNumThreads(1)
    return function(item)
