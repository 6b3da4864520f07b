"""Progress for anything that takes more than a few seconds: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gfm.redaction import redact

Item = TypeVar("Item")

LINE_EVERY_S = 5.0  # between plain lines, so that a log stays readable


def say(line: str) -> None:
    """One plain line of what happened, for the terminal and for logs, without passwords."""
    print(redact(line), flush=True)


def track(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    unit: str = "it",
    share: Callable[[Item], float] | None = None,
) -> Iterator[Item]:
    """Yield `items`, showing how many are done, the rate and the time left.

    `share` says how much of one unit an item is, where that is not 1: an image of an archive, where files are counted.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, total=total, unit=unit, unit_scale=share is not None, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(1 if share is None else share(item))
        return
    start = last = time.monotonic()
    count = 0.0
    for item in items:
        yield item
        count += 1 if share is None else share(item)
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            say(_line(what, count, total, unit, now - start))
    seconds = time.monotonic() - start
    if seconds >= LINE_EVERY_S:
        say(_line(what, count, total, unit, seconds))


def _line(what: str, count: float, total: int | None, unit: str, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    done = f"{round(count, 2):.12g}"
    if not total:
        return f"{what}: {done} {unit}, {rate:.1f} {unit}/s"
    left = max(total - count, 0) / max(rate, 1e-9)
    return f"{what}: {done}/{total} {unit} ({count / total:.0%}), {rate:.1f} {unit}/s, {left:.0f} s left"


def counted(number: int, noun: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
