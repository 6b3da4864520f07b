"""The energy of stages whose outputs must be the same bytes everywhere: it is kept beside them, not in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gfm.output_file import write_whole
from gfm.params import Carbon
from gfm.tracking.carbon import measure
from gfm.tracking.provenance import content_hash
from gfm.tracking.store import STATE

FOLDER = STATE / "energy"


@contextmanager
def account(carbon: Carbon, stage: str, made: Path) -> Iterator[None]:
    """Measure the block and note it as what the file `made` took, by the hash of its content.

    A block that raises leaves no note: what it took is lost, as that of a killed stage.
    """
    with measure(carbon, stage) as meter:
        yield
    if made.exists():
        note = {"stage": stage, "made": content_hash(made), "energy": meter.energy.as_dict()}
        write_whole(FOLDER / f"{stage}.json", json.dumps(note, indent=1) + "\n")


def noted(stage: str, made: Path) -> dict[str, Any] | None:
    """The energy that making the file `made` took here; None where it was made elsewhere, or before it was measured."""
    try:
        note = json.loads((FOLDER / f"{stage}.json").read_text(encoding="utf-8"))
        return dict(note["energy"]) if note["made"] == content_hash(made) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
