"""Results: how they are compared, where runs are recorded, how energy becomes carbon."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from gfm.params.geobench2 import GeoBench2
from gfm.params.section import Different, Name, OpenShare, Reason, Section, Share


class Evaluate(Section):
    """The results table and its uncertainty."""

    baseline: Name = "teacher"  # the model that ARP compares with
    reference: Name | None = None  # the pretraining that ablations are told from; None: the first of `models`
    bootstrap: PositiveInt = 2000  # resamples of the seeds
    confidence: OpenShare = 0.95
    # By task, and here because no training depends on them:
    too_small: dict[Name, Reason] = {}  # why no conclusion may be drawn from its data; printed beside its scores
    geobench2: dict[Name, GeoBench2] = {}  # the data set of GEO-Bench-2 that it is


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

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if urlsplit(uri).password is not None:
            raise ValueError(
                "holds a password, which would be recorded and shown; take it out and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD (for a database PGPASSWORD) in the environment"
            )
        return uri


class Carbon(Section):
    """How energy becomes kg CO2eq."""

    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USA"  # of the grid, for codecarbon
    intensity_kg_per_kwh: PositiveFloat | None = None  # a stated intensity; None: codecarbon's for the country
    pue: Annotated[float, Field(ge=1)] = 1.0  # power usage effectiveness of the site, in computed figures
    device_power_w: PositiveFloat | None = None  # of the devices at work, in computed figures; None: by their design
