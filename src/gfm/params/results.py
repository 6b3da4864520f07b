"""Results: how they are compared, where runs are recorded, how energy becomes carbon."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from gfm.params.section import Different, Name, OpenShare, Section, Share


class Evaluate(Section):
    """The results table and its uncertainty."""

    baseline: Name = "teacher"  # the model that ARP compares with
    bootstrap: PositiveInt = 2000  # resamples of the seeds
    confidence: OpenShare = 0.95


class Promotion(Section):
    """When a registered encoder takes the champion's place (`gfm promote`)."""

    # The tasks that it must win on; None: all that are not too_small.
    tasks: Annotated[list[Name], Different, Field(min_length=1)] | None = None
    margin: Share = 0.02  # no task may lose more than this share of the champion's score
    min_seeds: Annotated[int, Field(ge=2)] = 5  # of every task; evaluation/verdict.py says why not fewer


class Tracking(Section):
    """Where runs are recorded."""

    uri: str = "sqlite:///mlflow.db"  # or the address of a tracking server
    experiment: str = "gfm"
    registered_model: Name = "gfm-encoder"


class Carbon(Section):
    """How energy becomes kg CO2eq."""

    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USA"  # of the grid, for codecarbon
    intensity_kg_per_kwh: PositiveFloat | None = None  # a stated intensity; None: codecarbon's for the country
    pue: Annotated[float, Field(ge=1)] = 1.0  # power usage effectiveness of the site, in computed figures
    device_power_w: PositiveFloat | None = None  # of the devices at work, in computed figures; None: by their design
