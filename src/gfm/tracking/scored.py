"""Which pipeline run scored an encoder: written by `gfm evaluate`, looked for by whoever compares versions later.

An encoder is known by the run that made it, also where DVC kept it from an earlier pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gfm.tracking.provenance import data_version

SCORED = "scored."  # + the run that made the encoder; the value is the encoder's name in that pipeline's results
VALIDATION = "validation"  # what the data validation of the scored pipeline found
PASSED = "passed"


def scored_tags(run_ids: Mapping[str, str | None]) -> dict[str, str]:
    """For a pipeline's run: which encoders (name to run) its results hold."""
    return {f"{SCORED}{run_id}": name for name, run_id in run_ids.items() if run_id}


def validation_tags(passed: bool, warnings: int) -> dict[str, str | None]:
    """For a pipeline's run: what `gfm validate` found, and of which data."""
    data = data_version()
    said = f"{PASSED}, {warnings} warnings" if warnings else PASSED
    return {
        VALIDATION: said if passed else "failed",
        f"{VALIDATION}.manifest": data["manifest"],
        f"{VALIDATION}.splits": data["splits"],
    }


def last_scored(client: Any, experiment_id: str, run_id: str) -> Any | None:
    """The newest finished pipeline run whose results hold the encoder that `run_id` made; None where there is none."""
    found = client.search_runs(
        [experiment_id],
        filter_string=f"attributes.status = 'FINISHED' and tags.`{SCORED}{run_id}` != ''",
        order_by=["attributes.end_time DESC"],
        max_results=1,
    )
    return found[0] if found else None
