"""What the collection is made of, in numbers: how even its sources are, and what each brings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gfm.evaluation.collection import SourceCounts
from gfm.params import Params

MEASURES = ("entropy_bits", "contrast", "sharpness")
COLUMNS = ("id", "source", "label", "gsd_m", "cloud_share", "date", "west", "south", "east", "north", *MEASURES)


@dataclass(frozen=True)
class Spread:
    """Extremes and quartiles of a column."""

    low: float
    first_quartile: float
    median: float
    third_quartile: float
    high: float


@dataclass(frozen=True)
class SourceFacts:
    """One source's images in the collection; what is None is not known."""

    name: str
    images: int
    share: float  # of the collection's images
    measures: dict[str, Spread]  # of MEASURES; empty without images
    gsd_m: tuple[float, float] | None  # metres a pixel, lowest and highest
    gsd_declared: bool  # as a range in the parameters: single images are not known
    classes: dict[str, int]  # images by label, most first; empty for an unlabelled source
    # Images by what most of their ground is, most first; None where the manifest does not say it of any source.
    land_cover: dict[str, int] | None
    georeferenced: float  # share of its images with a footprint
    dated: float  # share with a date
    dates: tuple[str, str] | None  # first and last

    @property
    def effective_classes(self) -> float:
        """How many classes of equal size are as diverse as these."""
        return effective_number(self.classes.values())


@dataclass(frozen=True)
class CollectionFacts:
    """The whole collection."""

    sources: list[SourceFacts]
    measures: dict[str, Spread]

    @property
    def images(self) -> int:
        return sum(source.images for source in self.sources)

    @property
    def shannon(self) -> float:
        """Shannon diversity of the sources, weighed by images: nats."""
        return shannon(source.images for source in self.sources)

    @property
    def effective_sources(self) -> float:
        """How many sources of equal size are as diverse as these: exp of their Shannon diversity, 0 without images."""
        return effective_number(source.images for source in self.sources)

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        known = [source.gsd_m for source in self.sources if source.gsd_m is not None]
        return (min(low for low, _ in known), max(high for _, high in known)) if known else None

    @property
    def without_land_cover(self) -> int | None:
        """Images of which no raster says what most of their ground is; None where none is declared."""
        known = [sum(source.land_cover.values()) for source in self.sources if source.land_cover is not None]
        return self.images - sum(known) if known else None

    @property
    def classes(self) -> int:
        """Different labels over all sources."""
        return len({label for source in self.sources for label in source.classes})


def collection_facts(params: Params, counts: Sequence[SourceCounts], manifest: pd.DataFrame) -> CollectionFacts:
    """Gather the facts from `COLUMNS` of the manifest, for the sources that the assembly counted, in their order."""
    by_source = {str(name): rows for name, rows in manifest.groupby("source")}
    return CollectionFacts(
        sources=[
            _source(params, count.name, by_source.get(count.name, manifest.iloc[:0]), len(manifest)) for count in counts
        ],
        measures=_measures(manifest),
    )


def shannon(counts: Iterable[int]) -> float:
    """Shannon diversity -sum(p ln p) of parts of these sizes, in nats; 0 where there is at most one."""
    sizes = [count for count in counts if count > 0]
    total = sum(sizes)
    return -math.fsum(size / total * math.log(size / total) for size in sizes) + 0.0


def effective_number(counts: Iterable[int]) -> float:
    """exp of the Shannon diversity: the number of equal parts that are as diverse (Hill number of order 1)."""
    sizes = [count for count in counts if count > 0]
    return math.exp(shannon(sizes)) if sizes else 0.0


def _source(params: Params, name: str, rows: pd.DataFrame, total: int) -> SourceFacts:
    declared = params.geopile.sources[name].gsd_m if name in params.geopile.sources else None
    gsd, dates = rows["gsd_m"].dropna(), rows["date"].dropna()
    resolution = (float(gsd.min()), float(gsd.max())) if len(gsd) else None
    return SourceFacts(
        name=name,
        images=len(rows),
        share=len(rows) / max(total, 1),
        measures=_measures(rows),
        gsd_m=declared if isinstance(declared, tuple) and len(rows) else resolution,
        gsd_declared=isinstance(declared, tuple),
        classes=_counted(rows["label"]),
        land_cover=_counted(rows["land_cover"]) if "land_cover" in rows else None,
        georeferenced=_share(rows["west"]),
        dated=_share(rows["date"]),
        dates=(str(dates.min()), str(dates.max())) if len(dates) else None,
    )


def _measures(rows: pd.DataFrame) -> dict[str, Spread]:
    if rows.empty:
        return {}
    return {name: Spread(*map(float, np.percentile(rows[name], (0, 25, 50, 75, 100)))) for name in MEASURES}


def _counted(column: pd.Series[Any]) -> dict[str, int]:
    """How often each value stands there, most first."""
    counts = ((str(value), int(count)) for value, count in column.dropna().value_counts().items())
    return dict(sorted(counts, key=lambda entry: (-entry[1], entry[0])))


def _share(column: pd.Series[Any]) -> float:
    return float(column.notna().mean()) if len(column) else 0.0
