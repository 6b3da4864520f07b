"""What became of each source: the numbers of summary.json, and how they are printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfm.geopile.catalogue import Catalogue, Met
from gfm.geopile.choice import Choice
from gfm.geopile.quarantine import Refusal
from gfm.layout import COLLECTION
from gfm.params import Params
from gfm.progress import say


def summarise(params: Params, listed: dict[str, int], catalogue: Catalogue, met: Met, choice: Choice) -> dict[str, Any]:
    """Counts by source: `listed`, `met` (read), `quarantined` are of files, or images of archives; the rest of images.

    `ignored` is of files of archives that are no images, by kind; `without` of images, by the source that is left out.
    """
    bad = Counter(refusal.source for refusal in met.refusals)
    sources = {}
    for number, name in enumerate(params.geopile.sources):
        images = np.flatnonzero(catalogue.entries["source"] == number)
        kept = int(choice.kept[images].sum())
        dropped = choice.reasons(catalogue, images[~choice.kept[images]])
        sources[name] = {
            "listed": listed.get(name, met.files[name]),
            "met": met.files[name],
            "quarantined": bad[name],
            "images": len(images),
            "kept": kept,
            "dropped": dict(sorted(Counter(dropped).items())),
        }
        if met.ignored[name]:
            sources[name]["ignored"] = dict(sorted(met.ignored[name].items()))
    summary = {
        "bands": params.geopile.bands,
        "tile_px": params.geopile.tile_px,
        "images": int(choice.kept.sum()),
        "sources": sources,
    }
    if catalogue.covers:
        met_covers = Counter(catalogue.land_cover(np.flatnonzero(choice.kept)))
        summary["land_cover"] = {name: met_covers[name] for name in catalogue.covers}
        summary["no_land_cover"] = met_covers[None]
    if choice.without:
        summary["without"] = {name: int(images.sum()) for name, images in choice.without.items()}
    return summary


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """As JSON."""
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_summary(summary: dict[str, Any], refusals: Sequence[Refusal], seconds: float) -> None:
    """A table of the sources, and what to look at."""
    names = ["source", "files met", "quarantined", "images", "dropped", "kept", "why dropped"]
    lines = [names]
    for name, counts in summary["sources"].items():
        why = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        numbers = [counts[key] for key in ("met", "quarantined", "images")]
        numbers += [sum(counts["dropped"].values()), counts["kept"]]
        lines.append([name, *map(str, numbers), why])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for first, *numbers, why in lines:
        middle = "  ".join(text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True))
        say(f"{first.ljust(widths[0])}  {middle}  {why}".rstrip())
    say(
        f"{summary['images']} images, {summary['bytes'] / 1e6:.1f} MB in {summary['shards']} shards, "
        f"{seconds:.1f} s -> {COLLECTION}"
    )
    for name, images in summary.get("without", {}).items():
        say(f"without {name}: {images} images")
    if "land_cover" in summary:
        shown = ", ".join(f"{count:,} {name}" for name, count in summary["land_cover"].items() if count)
        say(f"land cover: {shown or 'none known'}; {summary['no_land_cover']:,} without one, which no quota limits")
    for name, counts in summary["sources"].items():
        if "ignored" in counts:
            said = ", ".join(f"{count} {kind}" for kind, count in counts["ignored"].items())
            say(f"{name}: in its archives {said}, which are no images of it")
    if any(counts["quarantined"] for counts in summary["sources"].values()):
        say(f"quarantined files and their reasons: {COLLECTION / 'quarantine.csv'}")
    for name, counts in summary["sources"].items():
        if counts["quarantined"] and not counts["images"]:
            refusal = next(refusal for refusal in refusals if refusal.source == name)
            say(f"{name}: NOTHING of it could be used; the first: {refusal.file}: {refusal.reason}")
