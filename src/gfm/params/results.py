"""Results: how they are compared, where runs are recorded, how energy becomes carbon."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from gfm.params.section import Name, OpenShare, Section


class Evaluate(Section):
    """The results table and its uncertainty."""

    baseline: Name = "teacher"  # the model that ARP compares with
    bootstrap: PositiveInt = 2000  # resamples of the seeds
    confidence: OpenShare = 0.95


class Tracking(Section):
    """Where runs are recorded."""

    uri: str = "sqlite:///mlflow.db"  # or the address of a tracking server
    experiment: str = "gfm"
    registered_model: Name = "gfm-encoder"


class Carbon(Section):
    """How energy becomes kg CO2eq."""

    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USA"  # of the grid, for codecarbon
    intensity_kg_per_kwh: PositiveFloat | None = None  # a stated intensity; None: codecarbon's for the country
