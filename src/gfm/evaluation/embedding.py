"""The page of an embedding: a scatter of the collection as an encoder sees it, its diversity, and what repeats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from gfm import layout
from gfm.errors import DataError
from gfm.evaluation import collection_figures as figures
from gfm.evaluation.collection import read_manifest, read_table
from gfm.evaluation.embedding_facts import EmbeddedSource, EmbeddingFacts, embedding_facts
from gfm.evaluation.mosaic import COLUMNS as MOSAIC_COLUMNS
from gfm.evaluation.mosaic import mosaic
from gfm.evaluation.page import Drawn, draw, render, write_figures
from gfm.evaluation.pictures import picture_address
from gfm.evaluation.scores import read_record
from gfm.imagery.shard_reader import ShardReader
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.progress import say
from gfm.tracking.provenance import data_version

DRAWN_SOURCES = 16  # in one figure; the largest
SHOWN_PAIRS = 8  # of repeats, those that are least alike: where the limit cuts
PICTURE_BYTES = 2_000_000


@dataclass(frozen=True)
class Embedded:
    """What `gfm embed` left: features and ids in the same order, and what they are of."""

    ids: list[str]
    sources: NDArray[np.object_]
    features: NDArray[np.float16]
    summary: dict[str, Any]
    repeats: pd.DataFrame  # id, kept, cosine


def describe_embedding(params: Params, name: str) -> None:
    """Write `reports/embeddings/NAME`, whole or not at all: report.html, figures/*.png and summary.json.

    Raises DataError where data/embeddings/NAME is missing or of another collection.
    """
    embedded = read_embedding(name)
    declared = [source for source in params.geopile.sources if (embedded.sources == source).any()]
    facts = embedding_facts(embedded.features, embedded.ids, embedded.sources, declared)
    drawn = _draw(facts, embedded, params)
    folder_name = layout.EMBEDDING_REPORTS / name
    with new_folder(folder_name) as folder:
        (folder / "figures").mkdir()
        write_figures(folder / "figures", drawn)
        text = json.dumps(_summary(facts, embedded), indent=1, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
        page = render(
            "embedding.html.j2",
            headline=f"The collection as {name} sees it",
            detail=detail(facts),
            reading=reading(facts),
            facts=facts,
            rows=[*facts.sources, facts.whole],
            repeated=embedded.repeats["id"].nunique(),
            summary=embedded.summary,
            figures=drawn,
            colours=figures.source_colours(list(params.geopile.sources)),
            pairs=_draw_pairs(folder / "figures", embedded),
        )
        (folder / "report.html").write_text(page, encoding="utf-8")
    say(f"{detail(facts)}: {folder_name / 'report.html'}")


def read_embedding(name: str) -> Embedded:
    """What `gfm embed NAME` wrote; DataError where it is missing, broken, or not of the manifest that is there."""
    folder = layout.EMBEDDINGS / name
    again = f"gfm embed {name}"
    summary = read_record(folder / "summary.json", again)
    if summary.get("manifest") != data_version()["manifest"]:
        raise DataError(f"{folder}: is of another collection than {layout.MANIFEST}; run `{again}` again")
    try:
        table = pq.read_table(folder / "features.parquet")
        column = table["feature"].combine_chunks()
        features = column.values.to_numpy().reshape(len(column), -1)
        sources = table["source"].to_numpy()
        ids = table["id"].to_pylist()
    except (OSError, KeyError, ValueError, AttributeError) as error:  # what pyarrow raises for broken files
        raise DataError(f"{folder}: cannot be read ({' '.join(str(error).split())}); run `{again}` again") from None
    repeats = read_table(folder / "duplicates.csv", ["id", "kept", "cosine"], "embed")
    return Embedded(ids, sources, features, summary, repeats.astype({"cosine": float}))


def detail(facts: EmbeddingFacts) -> str:
    """How diverse the images are, in one line."""
    images = f"{facts.whole.images:,} images are as diverse as {facts.whole.vendi:.1f} that have nothing in common"
    scored = [source for source in facts.sources if source.vendi_of_equal is not None]
    if len(scored) < 2 or facts.whole.vendi_of_equal is None:
        return images
    best = max(scored, key=lambda source: source.vendi_of_equal or 0)
    return (
        f"{images}; {facts.equal:,} of all sources mixed as {facts.whole.vendi_of_equal:.1f}, "
        f"{facts.equal:,} of {best.name}, the most diverse source, as {best.vendi_of_equal:.1f}"
    )


def reading(facts: EmbeddingFacts) -> str:
    """What these numbers say of the paper's claim that diverse sources beat one homogeneous satellite."""
    scored = [source.vendi_of_equal for source in facts.sources if source.vendi_of_equal is not None]
    mixed = facts.whole.vendi_of_equal
    if len(scored) < 2 or mixed is None:
        return (
            "The GFM paper (ICCV 2023) holds that diverse sources pretrain better than one homogeneous satellite; "
            "with fewer than two sources of some size this collection says nothing of it."
        )
    above = sum(mixed > score for score in scored)
    return (
        "The GFM paper (ICCV 2023) holds that diverse sources pretrain better than one homogeneous satellite, because "
        f"of more diverse features. At {facts.equal:,} images each, the mix of all sources is more diverse to this "
        f"encoder than {above} of the {len(scored)} sources alone. That is the claim's premise, not its conclusion: "
        "only pretraining with and without a source shows what a model gains."
    )


def _draw(facts: EmbeddingFacts, embedded: Embedded, params: Params) -> list[Drawn]:
    colours = figures.source_colours(list(params.geopile.sources))
    largest = sorted(facts.sources, key=lambda source: -source.images)[:DRAWN_SOURCES]
    note = f"the {DRAWN_SOURCES} largest of {len(facts.sources)} sources" if len(facts.sources) > len(largest) else ""
    shown = [source for source in facts.sources if source in largest]
    points = {source.name: facts.components[embedded.sources == source.name] for source in shown}
    title = "Images by their two principal components"
    drawn = [draw("scatter", title, note, lambda theme: figures.scatter(points, facts.explained, colours, theme))]
    nearest = {source.name: source.nearest for source in shown if len(source.nearest)}
    if nearest:
        limit = embedded.summary["duplicate_cosine"] or 0.0
        told = "; ".join(filter(None, ["dotted: from there on images are listed as repeats" if limit else "", note]))
        label = "cosine to the most alike other image"
        drawn.append(
            draw(
                "nearest",
                "Nearest neighbours",
                told,
                lambda theme: figures.distributions(nearest, label, colours, theme, limit=limit),
            )
        )
    return drawn


def _draw_pairs(folder: Path, embedded: Embedded) -> str | None:
    """pairs.png: above, the repeats that are least alike; below each, the image that is kept. Its address."""
    if embedded.repeats.empty:
        return None
    chosen = embedded.repeats.sort_values(["cosine", "id"]).head(SHOWN_PAIRS)
    manifest = read_manifest(MOSAIC_COLUMNS).set_index("id", drop=False)
    rows = manifest.loc[[*chosen["id"], *chosen["kept"]]]
    bands = [str(band) for band in read_record(layout.COLLECTION / "summary.json", "dvc repro assemble")["bands"]]
    path = folder / "pairs.png"
    path.write_bytes(mosaic(rows, ShardReader(layout.COLLECTION / "shards"), bands, across=len(chosen)))
    return picture_address(path, PICTURE_BYTES)


def _summary(facts: EmbeddingFacts, embedded: Embedded) -> dict[str, JsonValue]:
    """The content of summary.json: floats of four decimals, null for what cannot be said."""
    return {
        **{key: embedded.summary[key] for key in ("encoder", "weights", "image_px", "manifest", "duplicate_cosine")},
        "repeats": int(embedded.repeats["id"].nunique()),
        "equal_images": facts.equal,
        "explained_variance": [round(share, 4) for share in facts.explained],
        "all": _numbers(facts.whole),
        "sources": {source.name: _numbers(source) for source in facts.sources},
    }


def _numbers(source: EmbeddedSource) -> JsonValue:
    equal = source.vendi_of_equal
    return {
        "images": source.images,
        "vendi": round(source.vendi, 4),
        "vendi_of_equal": None if equal is None else round(equal, 4),
        "mean_cosine": round(source.mean_cosine, 4),
        "median_nearest_cosine": round(float(np.median(source.nearest)), 4) if len(source.nearest) else None,
    }
