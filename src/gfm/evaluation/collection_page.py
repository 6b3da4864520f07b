"""The page of the pretraining collection: what it says first, its figures, its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import JsonValue

from gfm.evaluation import collection_figures as figures
from gfm.evaluation.canvas import Theme
from gfm.evaluation.collection import Duplicates, Leaks, Listing, SourceCounts, Without
from gfm.evaluation.diversity import CollectionFacts, SourceFacts, effective_number
from gfm.evaluation.page import Drawn, draw, render
from gfm.imagery.footprint import Bounds
from gfm.params import Quality

DRAWN_SOURCES = 16  # in one figure; the largest
SHOWN_CLASSES = 60  # of a source, in the page; summary.json has all


@dataclass(frozen=True)
class Described:
    """Everything that the page and summary.json say."""

    manifest: str | None  # its hash
    facts: CollectionFacts
    counts: list[SourceCounts]
    split: dict[str, int]
    leaks: Leaks
    quarantine: Listing
    duplicates: list[Duplicates]
    without: list[Without]


def headline(facts: CollectionFacts) -> str:
    """How many images of how many sources."""
    met = sum(source.images > 0 for source in facts.sources)
    if not facts.images:
        return "The collection is empty"
    return f"{facts.images:,} image{_s(facts.images)} from {met} source{_s(met)}"


def detail(facts: CollectionFacts) -> str:
    """How diverse they are, as far as it is known."""
    if not facts.images:
        return "no image was kept: see what was dropped or quarantined, and why"
    said = []
    if facts.shannon:
        said.append(f"as diverse as {facts.effective_sources:.1f} sources of equal size")
    if facts.gsd_m is not None:
        said.append(f"{_span(facts.gsd_m)} m a pixel")
    if facts.classes:
        said.append(f"{facts.classes:,} class name{_s(facts.classes)}")
    said.append(f"median entropy {facts.measures['entropy_bits'].median:.1f} bits")
    return ", ".join(said)


def claim(facts: CollectionFacts) -> str:
    """What the paper says for diverse sources, and what this collection's numbers can and cannot add to it."""
    paper = (
        "The GFM paper (ICCV 2023) reports an ARP of +2.0 to +2.4 % over ImageNet-22k weights for masked image "
        "modelling on 600,000 images of five mixed sources, and of -5.5 % on 1.3 million images of one satellite, "
        "Sentinel-2, which it explains by more diverse features within and across images"
    )
    if not facts.images:
        return f"{paper}; this collection holds no images to set against it."
    met = sum(source.images > 0 for source in facts.sources)
    if met == 1:
        own = "this collection has one source, so its diversity can only lie within that source"
    else:
        own = f"this collection mixes {met} sources, as even as {facts.effective_sources:.1f} of equal size"
    return (
        f"{paper}; {own}. Those runs differ in resolution, number of images and epochs as well, and no number on this "
        "page shows that a model gains by it: pretraining with and without a source does."
    )


def draw_collection(quality: Quality, described: Described, manifest: pd.DataFrame) -> dict[str, list[Drawn]]:
    """All figures by section: measures, classes and land cover (one a source), places, kept; empty where not known."""
    drawn: dict[str, list[Drawn]] = {"measures": [], "classes": [], "land_cover": [], "places": [], "kept": []}
    facts = described.facts
    colours = figures.source_colours([source.name for source in facts.sources])
    drawn["kept"] = _kept(described.counts)
    if not facts.images:
        return drawn
    present = sorted((source for source in facts.sources if source.images), key=lambda source: -source.images)
    shown = {source.name for source in present[:DRAWN_SOURCES]}
    largest = [source for source in facts.sources if source.name in shown]
    note = f"the {DRAWN_SOURCES} largest of {len(present)} sources" if len(present) > DRAWN_SOURCES else ""
    rows = {source.name: manifest[manifest["source"] == source.name] for source in largest}
    for column, title, label, log, limit in (
        ("entropy_bits", "Entropy", "Shannon entropy of the grey histogram, bits", False, quality.min_entropy_bits),
        ("contrast", "Contrast", "standard deviation of the grey levels", False, quality.min_contrast),
        ("sharpness", "Sharpness", "variance of the Laplacian of grey", True, quality.min_sharpness),
    ):
        values = {name: own[column].to_numpy(dtype=float) for name, own in rows.items()}
        drawn["measures"].append(draw(column, title, note, _distributions(values, label, colours, log, limit)))
    resolutions = {name: own["gsd_m"].dropna().to_numpy(dtype=float) for name, own in rows.items()}
    spans = {source.name: source.gsd_m for source in largest if source.gsd_declared and source.gsd_m}
    if any(len(values) for values in resolutions.values()):
        told = "; ".join(filter(None, ["shaded: declared as a range" if spans else "", note]))
        label = "ground sample distance, m a pixel"
        drawn["measures"].append(
            draw("gsd", "Resolution", told, _distributions(resolutions, label, colours, True, 0.0, spans))
        )
    clouds = {name: own["cloud_share"].dropna().to_numpy(dtype=float) for name, own in rows.items()}
    clouds = {name: values for name, values in clouds.items() if len(values)}
    if clouds:
        label, limit = "share of cloudy pixels", quality.max_cloud_share or 0.0
        drawn["measures"].append(draw("clouds", "Clouds", note, _distributions(clouds, label, colours, False, limit)))
    for source in facts.sources:
        for kind, classes in (("classes", source.classes), ("land_cover", source.land_cover)):
            if classes:
                name, bars = f"{kind.replace('_', '-')}-{source.name}", _classes(classes, colours[source.name])
                drawn[kind].append(draw(name, source.name, _balance(classes, source.images), bars))
    drawn["places"] = _places(manifest[manifest["source"].isin(shown)], colours, note)
    return drawn


def _distributions(
    values: Mapping[str, figures.Values],
    label: str,
    colours: Mapping[str, str],
    log: bool,
    limit: float,
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> Callable[[Theme], bytes]:
    return lambda theme: figures.distributions(values, label, colours, theme, log=log, limit=limit, spans=spans)


def _classes(classes: Mapping[str, int], colour: str) -> Callable[[Theme], bytes]:
    return lambda theme: figures.class_bars(classes, colour, theme)


def _balance(classes: Mapping[str, int], images: int) -> str:
    sizes = list(classes.values())
    said = f"{len(sizes):,} class{'es' if len(sizes) > 1 else ''}"
    if sizes[-1] == sizes[0]:
        said = f"{said} of {sizes[0]:,} image{_s(sizes[0])}"
    else:
        even = effective_number(sizes)
        said = f"{said} of {sizes[-1]:,} to {sizes[0]:,} images, as even as {even:.1f} of equal size"
    without = images - sum(sizes)
    return f"{said}; {without:,} without one" if without else said


def _places(manifest: pd.DataFrame, colours: Mapping[str, str], note: str) -> list[Drawn]:
    known = manifest.dropna(subset=list(Bounds._fields))
    points = {
        name: np.array([Bounds(*row).centre for row in rows[list(Bounds._fields)].itertuples(index=False)])
        for name in colours
        if len(rows := known[known["source"] == name])
    }
    if not points:
        return []
    drawn = [draw("world", "On Earth", note, lambda theme: figures.world_map(points, colours, theme))]
    bounds = figures.region(points)
    if bounds is not None:
        drawn.append(
            draw("region", "Closer", "a dot an image", lambda theme: figures.region_map(points, bounds, colours, theme))
        )
    return drawn


def _kept(counts: Sequence[SourceCounts]) -> list[Drawn]:
    met = sorted((count for count in counts if count.images), key=lambda count: -count.images)
    largest = {count.name for count in met[:DRAWN_SOURCES]}
    note = f"the {DRAWN_SOURCES} largest of {len(met)} sources" if len(met) > DRAWN_SOURCES else ""
    shown = [count for count in counts if count.name in largest]
    return [draw("kept", "Kept and dropped", note, lambda theme: figures.kept_bars(shown, theme))] if shown else []


def render_collection(described: Described, drawn: Mapping[str, list[Drawn]], mosaics: Mapping[str, str]) -> str:
    """The page as text; `mosaics` maps a source to the address of its images."""
    facts = described.facts
    return render(
        "collection.html.j2",
        headline=headline(facts),
        detail=detail(facts),
        claim=claim(facts),
        manifest=described.manifest,
        facts=facts,
        colours=figures.source_colours([source.name for source in facts.sources]),
        sources=[_row(source) for source in facts.sources],
        classes={source.name: _class_list(source) for source in facts.sources if source.classes},
        figures=drawn,
        mosaics=mosaics,
        counts=described.counts,
        split=described.split,
        duplicates=described.duplicates,
        without=[
            f"Without {one.source}: {one.images:,} image{_s(one.images)}. {one.left_out:,} of the collection "
            f"{'is' if one.left_out == 1 else 'are'} left out, {one.returned:,} return{'s' * (one.returned == 1)}."
            for one in described.without
        ],
        found_leaks=described.leaks,
        quarantined=described.quarantine,
        licences=licences(described.counts),
    )


def _row(source: SourceFacts) -> dict[str, str]:
    """A source in the page's first table."""

    def quartiles(name: str, digits: int) -> tuple[str, str]:
        spread = source.measures.get(name)
        if spread is None:
            return "–", ""
        return (
            f"{spread.median:,.{digits}f}",
            f"{spread.first_quartile:,.{digits}f} to {spread.third_quartile:,.{digits}f}",
        )

    row = {
        "name": source.name,
        "images": f"{source.images:,}",
        "share": f"{100 * source.share:.0f} %" if source.images else "",
        "gsd": "–" if source.gsd_m is None else _span(source.gsd_m),
        "gsd_note": "declared" if source.gsd_m is not None and source.gsd_declared else "",
        "classes": f"{len(source.classes):,}" if source.classes else "–",
        "georeferenced": f"{100 * source.georeferenced:.0f} %" if source.images else "–",
        "dates": "–" if source.dates is None else " to ".join(dict.fromkeys(source.dates)),
        "dates_note": "" if source.dated in (0.0, 1.0) else f"{100 * source.dated:.0f} % dated",
    }
    for name, digits in (("entropy_bits", 1), ("contrast", 0), ("sharpness", 0)):
        row[name], row[f"{name}_note"] = quartiles(name, digits)
    return row


def _class_list(source: SourceFacts) -> list[str]:
    listed = [f"{label}: {count:,}" for label, count in list(source.classes.items())[:SHOWN_CLASSES]]
    hidden = len(source.classes) - len(listed)
    return [*listed, f"and {hidden:,} more in summary.json"] if hidden else listed


def licences(counts: Sequence[SourceCounts]) -> list[dict[str, JsonValue]]:
    """The declared licences with the sources and kept images that are under each."""
    found: dict[str, list[SourceCounts]] = {}
    for count in counts:
        found.setdefault(count.licence, []).append(count)
    return [
        {
            "licence": licence or "not stated",
            "sources": [count.name for count in own],
            "images": sum(count.kept for count in own),
        }
        for licence, own in found.items()
    ]


def _span(span: tuple[float, float]) -> str:
    low, high = (f"{value:.2g}" if value < 10 else f"{value:,.0f}" for value in span)
    return low if low == high else f"{low} to {high}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
