"""`gfm describe`: a page of the pretraining collection, its figures as PNG files, and its numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from pydantic import JsonValue

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation.collection import (
    read_duplicates,
    read_leaks,
    read_manifest,
    read_quarantine,
    read_sources,
    read_split,
    read_without,
)
from gfm.evaluation.collection_page import (
    Described,
    detail,
    draw_collection,
    headline,
    licences,
    render_collection,
)
from gfm.evaluation.diversity import COLUMNS, CollectionFacts, Spread, collection_facts
from gfm.evaluation.mosaic import COLUMNS as MOSAIC_COLUMNS
from gfm.evaluation.mosaic import sample_mosaic
from gfm.evaluation.page import write_figures
from gfm.evaluation.pictures import picture_address
from gfm.evaluation.scores import read_record
from gfm.imagery.shard_reader import ShardReader
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say
from gfm.tracking.provenance import data_version

ALWAYS = (*MOSAIC_COLUMNS, "source", "entropy_bits", "contrast", "sharpness")
PICTURE_BYTES = 4_000_000  # of the page, for all sources' images together


def describe(params: Params) -> None:
    """Write `gfm.layout.COLLECTION_REPORT`, whole or not at all: report.html, figures/*.png and summary.json.

    Raises DataError naming what is missing and the command that makes it.
    """
    declared = [] if params.geopile.land_cover is None else ["land_cover"]
    manifest = read_manifest([*COLUMNS, *MOSAIC_COLUMNS[1:], *declared])
    _check(params, manifest)
    counts = read_sources(params)
    described = Described(
        manifest=data_version()["manifest"],
        facts=collection_facts(params, counts, manifest),
        counts=counts,
        split=read_split(),
        leaks=read_leaks(params),
        quarantine=read_quarantine(),
        duplicates=read_duplicates(),
        without=read_without(manifest),
    )
    drawn = draw_collection(params.geopile.quality, described, manifest)
    with new_folder(layout.COLLECTION_REPORT) as folder:
        (folder / "figures").mkdir()
        write_figures(folder / "figures", (figure for group in drawn.values() for figure in group))
        mosaics = _write_mosaics(folder / "figures", described.facts, manifest)
        text = json.dumps(_summary(described), indent=1, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
        page = render_collection(described, drawn, mosaics)
        (folder / "report.html").write_text(page, encoding="utf-8")
    report = layout.COLLECTION_REPORT / "report.html"
    say(f"{headline(described.facts)}; {detail(described.facts)}")
    say(f"collection report: {report} ({report.stat().st_size / 1e6:.1f} MB)")


def _check(params: Params, manifest: pd.DataFrame) -> None:
    """DataError for images of other sources than the parameters', and for cells that assemble never leaves empty."""
    strange = sorted(set(manifest["source"].dropna().astype(str)) - set(params.geopile.sources))
    if strange:
        raise DataError(
            f"{layout.MANIFEST}: has images of {', '.join(strange[:3])}, which geopile.sources does not; "
            "run `dvc repro assemble`"
        )
    empty = [name for name in ALWAYS if manifest[name].isna().any()]
    if empty:
        raise DataError(f"{layout.MANIFEST}: {', '.join(empty)} have empty cells; run `dvc repro -f assemble`")


def _write_mosaics(folder: Path, facts: CollectionFacts, manifest: pd.DataFrame) -> dict[str, str]:
    """mosaic-SOURCE.png for every source with images, and their addresses for the page."""
    present = [source.name for source in facts.sources if source.images]
    bands = [str(band) for band in read_record(layout.COLLECTION / "summary.json", "dvc repro assemble")["bands"]]
    reader = ShardReader(layout.COLLECTION / "shards")
    addresses = {}
    for name in present:
        path = folder / f"mosaic-{name}.png"
        path.write_bytes(sample_mosaic(manifest[manifest["source"] == name], reader, bands))
        addresses[name] = picture_address(path, PICTURE_BYTES // len(present))
    return addresses


def _summary(described: Described) -> dict[str, JsonValue]:
    """The content of summary.json: floats of four decimals, null for what is not known."""
    facts, counts = described.facts, {count.name: count for count in described.counts}
    sources: dict[str, JsonValue] = {}
    for source in facts.sources:
        own = counts[source.name]
        sources[source.name] = {
            "images": source.images,
            "share": round(source.share, 4),
            "licence": own.licence,
            **_rounded(source.measures),
            "gsd_m": _gsd(source.gsd_m),
            "gsd_declared_range": source.gsd_declared,
            "classes": dict(source.classes),
            "effective_classes": round(source.effective_classes, 4),
            **({"land_cover": dict(source.land_cover)} if source.land_cover else {}),
            "georeferenced_share": round(source.georeferenced, 4),
            "dated_share": round(source.dated, 4),
            "dates": None if source.dates is None else list(source.dates),
            "dropped": dict(own.dropped),
            "quarantined_files": own.quarantined,
        }
    return {
        "manifest": described.manifest,
        "images": facts.images,
        "diversity": {
            "shannon_nats": round(facts.shannon, 4),
            "effective_sources": round(facts.effective_sources, 4),
            "classes": facts.classes,
            "gsd_m": _gsd(facts.gsd_m),
        },
        **_rounded(facts.measures),
        "split": dict(described.split),
        "leaks": {
            "images": described.leaks.images,
            "found": [row | {"images": int(row["images"])} for row in described.leaks.rows],
        },
        "duplicates": [asdict(entry) for entry in described.duplicates],
        **({"without": [asdict(entry) for entry in described.without]} if described.without else {}),
        "licences": [*licences(described.counts)],
        "sources": sources,
    }


def _rounded(measures: Mapping[str, Spread]) -> dict[str, JsonValue]:
    return {name: {key: round(value, 4) for key, value in asdict(spread).items()} for name, spread in measures.items()}


def _gsd(span: tuple[float, float] | None) -> JsonValue:
    return None if span is None else [round(value, 4) for value in span]
