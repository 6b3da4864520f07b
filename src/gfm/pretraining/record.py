"""run.json of an encoder: what was run, on what, how long, with which energy, and what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One making of an encoder."""

    name: str
    kind: str  # pretraining, supervised teacher, imported teacher, untrained
    seed: int | None
    seconds: float
    samples: int  # images seen, repeats counted
    provenance: Mapping[str, Any]
    energy: Mapping[str, Any]
    run_id: str | None  # in MLflow
    metrics: Mapping[str, float]
    settings: Mapping[str, Any] | None = None  # of a pretraining: what it was told, and the sources that it saw
    resumed_at_step: int | None = None  # seconds and energy cover the whole, but what a kill lost; None: in one go

    def write(self, folder: Path) -> None:
        """Write `run.json`."""
        values = asdict(self) | {"seconds": round(self.seconds, 2)}
        if self.settings is None:
            del values["settings"]
        (folder / "run.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
