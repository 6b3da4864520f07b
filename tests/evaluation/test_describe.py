"""`gfm describe` as whoever receives its page sees it: any collection gives a whole page, and its numbers are right."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfm.errors import DataError
from gfm.evaluation.describe import describe
from gfm.evaluation.diversity import effective_number, shannon
from gfm.layout import COLLECTION, COLLECTION_REPORT, COLLECTION_SPLIT, LEAKS, MANIFEST, QUARANTINE, manifest_without
from gfm.params import Params

ROOT = Path(__file__).parents[2]
REPORT = COLLECTION_REPORT / "report.html"
SUMMARY = COLLECTION_REPORT / "summary.json"
BERLIN = (13.40, 52.50, 13.41, 52.51)
Bounds = tuple[float, float, float, float]


@dataclass
class Collection:
    """What `assemble` and `split` leave, drawn by the test."""

    sources: dict[str, dict[str, Any]]
    bands: Sequence[str] = ("R", "G", "B")
    land_cover: dict[int, str] = field(default_factory=dict)  # declared classes
    rows: list[dict[str, Any]] = field(default_factory=list)
    data: bytes = b""
    dropped: list[tuple[str, str, str, str]] = field(default_factory=list)
    leaks: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def params(self) -> Params:
        usual = {"format": "images", "licence": "CC0", "imagery": {"bands": dict.fromkeys(self.bands)}}
        sources = {name: {"root": name} | usual | source for name, source in self.sources.items()}
        scale = {"mean": [0.5] * len(self.bands), "std": [0.25] * len(self.bands)}
        teacher = {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none", "normalisation": scale}
        task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
        return Params.model_validate(
            {
                "geopile": {"bands": list(self.bands), "sources": sources} | self._land_cover,
                "teacher": teacher,
                "student": {"architecture": {}, "normalisation": scale},
                "pretrain": {"gfm": {"recipe": "gfm"}},
                "tasks": {"t": {"kind": "classification", "data": task}},
            }
        )

    @property
    def _land_cover(self) -> dict[str, Any]:
        return {"land_cover": {"root": "worldcover", "classes": self.land_cover}} if self.land_cover else {}

    def add(self, source: str, bounds: Bounds | None = None, **values: Any) -> str:
        """One image of noise; its measures are of its number, so that each differs."""
        number = len(self.rows)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 30, len(self.bands)), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if len(self.bands) == 1 else pixels).save(buffer, "PNG")
        sides = dict(zip(("west", "south", "east", "north"), bounds or (None,) * 4, strict=True))
        row = {"id": f"{source}/{number:04d}.png", "source": source, "label": None, "gsd_m": None, "date": None}
        row |= {"entropy_bits": 5 + number % 7 / 4, "contrast": 20.0 + number, "sharpness": 100.0 * number}
        row |= {"shard": "00000.tar", "offset": len(self.data), "size": buffer.tell(), **sides}
        self.data += buffer.getvalue()
        self.rows.append(row | values)
        return str(row["id"])

    def write(self) -> Params:
        (COLLECTION / "shards").mkdir(parents=True, exist_ok=True)
        (COLLECTION / "shards/00000.tar").write_bytes(self.data)
        columns = ["id", "source", "label", "gsd_m", "date", "entropy_bits", "contrast", "sharpness", "cloud_share"]
        columns += [*self._land_cover, "shard", "offset", "size", "west", "south", "east", "north"]
        table = pd.DataFrame(self.rows, columns=columns)
        floats = dict.fromkeys(
            ("gsd_m", "entropy_bits", "contrast", "sharpness", "cloud_share", *columns[-4:]), "float64"
        )
        table = table.astype(floats | {"offset": "int64", "size": "int64"})
        table.to_parquet(MANIFEST, index=False)
        counts = {}
        for name in self.sources:
            kept = int((table["source"] == name).sum())
            reasons = [reason for source, _, reason, _ in self.dropped if source == name]
            why = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
            refused = sum(source == name for source, _, _ in self.refused)
            met = kept + len(reasons) + refused
            counts[name] = {
                "listed": met,
                "met": met,
                "quarantined": refused,
                "images": kept + len(reasons),
                "kept": kept,
                "dropped": why,
            }
        summary = {"bands": list(self.bands), "images": len(table), "sources": counts}
        (COLLECTION / "summary.json").write_text(json.dumps(summary))
        pd.DataFrame(self.dropped, columns=["source", "id", "reason", "kept"]).to_csv(
            COLLECTION / "dropped.csv", index=False
        )
        pd.DataFrame(self.refused, columns=["source", "file", "reason"]).to_csv(QUARANTINE, index=False)
        COLLECTION_SPLIT.parent.mkdir(parents=True, exist_ok=True)
        leaked = {leak[0] for leak in self.leaks}
        split = ["leak" if row["id"] in leaked else "train" for row in self.rows]
        pd.DataFrame({"id": table["id"], "split": split}).to_parquet(COLLECTION_SPLIT)
        pd.DataFrame(self.leaks, columns=["id", "task", "sample", "split", "how"]).to_csv(LEAKS, index=False)
        return self.params


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Collection]:
    monkeypatch.chdir(tmp_path)

    def make(*names: str, **sources: dict[str, Any]) -> Collection:
        return Collection({**{name: {} for name in names}, **sources})

    return make


def described(made: Collection) -> tuple[str, dict[str, Any], set[str]]:
    """The words of the page, the summary, and the names of the figures, after `gfm describe`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib's, of letters and limits it cannot draw
        describe(made.write())
    page = REPORT.read_text(encoding="utf-8")
    assert Page(page).open == []
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    figures = {path.stem for path in (COLLECTION_REPORT / "figures").iterdir()}
    return re.sub(r"\s+", " ", text), json.loads(SUMMARY.read_text(encoding="utf-8")), figures


class Page(HTMLParser):
    """Checks that tags close and that nothing is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert name not in ("src", "srcset", "href") or (value or "").startswith(("data:image/", "#"))
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_clouds_are_drawn_where_a_mask_said_something(collection: Callable[..., Collection]) -> None:
    made = collection("aerial", "satellite")
    made.add("aerial")
    assert "clouds" not in described(made)[2]
    made.add("satellite", cloud_share=0.3)
    assert "clouds" in described(made)[2]


def test_land_cover_is_drawn_a_source_where_rasters_are_declared(collection: Callable[..., Collection]) -> None:
    made = collection("aerial", "satellite")
    made.add("satellite")
    text, summary, figures = described(made)
    assert "Land cover" not in text and "land_cover" not in summary["sources"]["satellite"]
    made.land_cover = {10: "tree cover", 80: "water"}
    for cover in ("water", "tree cover", "water", None):
        made.add("aerial", land_cover=cover)
    text, summary, figures = described(made)
    assert summary["sources"]["aerial"]["land_cover"] == {"water": 2, "tree cover": 1}
    assert "2 classes of 1 to 2 images, as even as 1.9 of equal size; 1 without one" in text
    assert "land-cover-aerial" in figures and "land-cover-satellite" not in figures
    assert "2 of 5 images have none: they do not say where they lie, or the rasters say nothing" in text


def test_land_cover_that_no_image_has_is_said_without_a_figure(collection: Callable[..., Collection]) -> None:
    made = collection("aerial")
    made.land_cover = {10: "tree cover"}
    made.add("aerial", land_cover=None)
    text, _, figures = described(made)
    assert "1 of 1 images have none" in text and not any("land-cover" in name for name in figures)
    made.rows[0]["land_cover"] = "tree cover"
    assert "It is known of every image" in described(made)[0]


def test_what_the_collection_would_be_without_a_source_is_told_a_line_each(
    collection: Callable[..., Collection],
) -> None:
    made = collection("aerial", "satellite")
    kept = [made.add("aerial"), made.add("aerial"), made.add("satellite")]
    text, summary, _ = described(made)
    assert "Without" not in text and "without" not in summary
    for source, ids in (("aerial", [kept[2], "satellite/copy.png"]), ("satellite", kept[:2])):
        path = manifest_without(source)
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame({"id": ids}).to_parquet(path)
    text, summary, _ = described(made)
    assert "Without aerial: 2 images. 2 of the collection are left out, 1 returns." in text
    assert "Without satellite: 2 images. 1 of the collection is left out, 0 return." in text
    assert summary["without"][0] == {"source": "aerial", "images": 2, "left_out": 2, "returned": 1}


def test_the_numbers_of_each_source_are_those_of_its_images(collection: Callable[..., Collection]) -> None:
    made = collection(aerial={"gsd_m": [0.5, 2.0]}, satellite={})
    for number in range(6):
        made.add("aerial", label="port" if number < 4 else "field", gsd_m=1.0)
    for number in range(2):
        made.add("satellite", BERLIN if number else None, gsd_m=10.0, date="2021-03-04" if number else None)
    text, summary, figures = described(made)
    aerial, satellite = summary["sources"]["aerial"], summary["sources"]["satellite"]
    assert (aerial["images"], aerial["share"], aerial["classes"]) == (6, 0.75, {"port": 4, "field": 2})
    assert (aerial["gsd_m"], aerial["gsd_declared_range"], satellite["gsd_m"]) == ([0.5, 2.0], True, [10.0, 10.0])
    assert (satellite["georeferenced_share"], satellite["dates"]) == (0.5, ["2021-03-04", "2021-03-04"])
    assert aerial["contrast"] == {
        "low": 20.0,
        "first_quartile": 21.25,
        "median": 22.5,
        "third_quartile": 23.75,
        "high": 25.0,
    }
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert summary["diversity"]["shannon_nats"] == round(entropy, 4)
    assert summary["diversity"]["effective_sources"] == round(math.exp(entropy), 4)
    assert summary["diversity"]["gsd_m"] == [0.5, 10.0]
    assert "8 images from 2 sources" in text
    assert "As diverse as 1.8 sources of equal size, 0.5 to 10 m a pixel, 2 class names" in text
    assert "2 classes of 2 to 4 images, as even as 1.9 of equal size" in text
    assert figures >= {"entropy_bits", "contrast", "sharpness", "gsd", "classes-aerial", "world", "region", "kept"}
    assert figures >= {"mosaic-aerial", "mosaic-satellite"} and "classes-satellite" not in figures


def test_what_was_left_out_is_counted_by_reason_source_and_task(collection: Callable[..., Collection]) -> None:
    made = collection("a", "b")
    kept = [made.add("a"), made.add("b"), made.add("b")]
    made.dropped = [("a", "a/x", "near duplicate", kept[0]), ("b", "b/x", "exact duplicate", kept[0])]
    made.dropped += [("b", "b/y", "exact duplicate", kept[0]), ("a", "a/z", "blurred", "")]
    made.leaks = [(kept[2], "roofs", "s", "test", "looks"), (kept[2], "roofs", "s2", "test", "looks")]
    made.refused = [("a", "a/broken.tif", "truncated <here>")]
    text, summary, _ = described(made)
    assert summary["duplicates"] == [
        {"source": "a", "kept_source": "a", "reason": "near duplicate", "images": 1},
        {"source": "b", "kept_source": "a", "reason": "exact duplicate", "images": 2},
    ]
    assert summary["split"] == {"train": 2, "val": 0, "leak": 1}
    assert summary["leaks"] == {
        "images": 1,
        "found": [{"task": "roofs", "split": "test", "how": "looks", "images": 1}],
    }
    assert summary["sources"]["a"]["dropped"] == {"blurred": 1, "near duplicate": 1}
    assert "b a exact duplicate 2" in text
    assert "blurred 1, near duplicate 1" in text
    assert "roofs test looks 1" in text
    assert "truncated &lt;here&gt;" in text


def test_an_empty_collection_says_so_and_shows_why(collection: Callable[..., Collection]) -> None:
    made = collection("a", "b")
    made.dropped = [("a", "a/x", "low entropy", "")]
    text, summary, figures = described(made)
    assert "The collection is empty" in text
    assert "low entropy 1" in text
    assert "this collection holds no images to set against it" in text
    assert (summary["images"], summary["diversity"]["effective_sources"]) == (0, 0.0)
    assert summary["sources"]["a"]["gsd_m"] is None
    assert figures == {"kept"}
    made.dropped = []
    assert described(made)[2] == set()


@pytest.mark.parametrize("bands", [("SAR",), ("R", "G", "B"), ("N", "G", "X"), ("B", "G", "R")])
def test_one_image_of_any_bands_is_a_whole_page(collection: Callable[..., Collection], bands: tuple[str, ...]) -> None:
    made = collection("only")
    made.bands = bands
    made.add("only", sharpness=0.0)
    text, summary, figures = described(made)
    assert "1 image from 1 source Median entropy 5.0 bits." in text
    assert "this collection has one source, so its diversity can only lie within that source" in text
    assert "No image says where it lies" in text
    assert figures == {"entropy_bits", "contrast", "sharpness", "kept", "mosaic-only"}
    assert summary["sources"]["only"]["classes"] == {}
    sheet = np.asarray(Image.open(COLLECTION_REPORT / "figures/mosaic-only.png"))
    assert sheet.shape == (132, 132, 3)
    if bands == ("B", "G", "R"):  # the stored first band is shown as blue
        stored = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        means = sheet.reshape(-1, 3).mean(axis=0)
        assert np.abs(means - stored[:, 3:27, ::-1].reshape(-1, 3).mean(axis=0)).max() < 2


def test_unicode_and_markup_in_labels_and_licences_are_shown_as_they_are(collection: Callable[..., Collection]) -> None:
    made = collection(photos={"licence": "<script>alert(1)</script> © Ünïön & 地図"})
    for label in ("港口", "Häfen & Seen", "<b>bold</b>", "x" * 80, "$a_b$", "港口"):
        made.add("photos", label=label)
    text, summary, _ = described(made)
    page = REPORT.read_text(encoding="utf-8")
    assert "<script" not in page and "<b>bold" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; © Ünïön &amp; 地図" in text
    assert "港口: 2" in text
    assert summary["sources"]["photos"]["licence"].startswith("<script>")
    assert list(summary["sources"]["photos"]["classes"]) == ["港口", "$a_b$", "<b>bold</b>", "Häfen & Seen", "x" * 80]


def test_many_sources_and_classes_stay_readable(collection: Callable[..., Collection]) -> None:
    made = collection(*(f"source-{number:02d}" for number in range(20)))
    for number in range(20):
        made.add(f"source-{number:02d}", (number * 17.0 - 170, -60.0, number * 17.0 - 169, -59.0))
    for number in range(70):
        made.add("source-00", label=f"class {number:02d}")
    text, summary, figures = described(made)
    assert "the 16 largest of 20 sources" in text
    assert "and 10 more in summary.json" in text
    assert len(summary["sources"]["source-00"]["classes"]) == 70
    assert "world" in figures and "region" not in figures  # they span the Earth
    assert Image.open(COLLECTION_REPORT / "figures/entropy_bits.png").height < 1500
    assert REPORT.stat().st_size < 6_000_000


def test_a_footprint_across_the_antimeridian_lies_there_and_not_in_africa(
    collection: Callable[..., Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gfm.evaluation import collection_figures

    drawn = []
    draw = collection_figures.world_map
    monkeypatch.setattr(
        collection_figures, "world_map", lambda points, *rest: drawn.append(points) or draw(points, *rest)
    )
    made = collection("fiji")
    made.add("fiji", (179.9, -17.0, -179.9, -16.0))
    described(made)
    [longitude, latitude] = drawn[0]["fiji"][0]
    assert (abs(longitude), latitude) == (180.0, -16.5)


def test_describing_again_writes_the_same_bytes_and_forgets_what_is_gone(collection: Callable[..., Collection]) -> None:
    made = collection("a", "b")
    for number in range(30):
        made.add("ab"[number % 2], BERLIN, label="land")
    described(made)
    before = {path: path.read_bytes() for path in COLLECTION_REPORT.rglob("*") if path.is_file()}
    (COLLECTION_REPORT / "figures/classes-gone.png").write_bytes(b"of a source that is no more")
    described(made)
    assert {path: path.read_bytes() for path in COLLECTION_REPORT.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: MANIFEST.unlink(), r"manifest\.parquet: no such file; run `dvc repro assemble`"),
        (lambda: MANIFEST.write_bytes(b"no table"), r"manifest\.parquet: cannot be read .*`dvc repro -f assemble`"),
        (
            lambda: pd.read_parquet(MANIFEST).drop(columns=["contrast", "sharpness"]).to_parquet(MANIFEST),
            r"manifest\.parquet: lacks contrast, sharpness: an older version made it; run `dvc repro -f assemble`",
        ),
        (
            lambda: pd.read_parquet(MANIFEST).assign(source="gone").to_parquet(MANIFEST),
            r"manifest\.parquet: has images of gone, which geopile\.sources does not; run `dvc repro assemble`",
        ),
        (
            lambda: pd.read_parquet(MANIFEST).assign(offset=None, contrast=None).to_parquet(MANIFEST),
            r"manifest\.parquet: offset, contrast have empty cells; run `dvc repro -f assemble`",
        ),
        (
            lambda: (COLLECTION / "summary.json").write_text('{"sources": {"a": {"met": 1e999}}, "bands": ["R"]}'),
            r"summary\.json: its counts are not as assemble writes them",
        ),
        (lambda: LEAKS.unlink(), r"leaks\.csv: no such file; run `dvc repro split`"),
        (lambda: (COLLECTION / "shards/00000.tar").write_bytes(b""), r"00000\.tar.*run `gfm assemble` again"),
    ],
)
def test_what_is_missing_is_named_and_the_report_stays_as_it_was(
    collection: Callable[..., Collection], spoil: Callable[[], Any], message: str
) -> None:
    made = collection("a")
    made.add("a")
    described(made)
    before = REPORT.read_bytes()
    spoil()
    with pytest.raises(DataError, match=message):
        describe(made.params)
    assert REPORT.read_bytes() == before


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_diversity_lies_between_one_and_the_number_of_parts(counts: list[int]) -> None:
    parts = [count for count in counts if count]
    assert 0 <= shannon(counts) <= math.log(max(len(parts), 1)) + 1e-9
    if parts:
        assert 1 - 1e-9 <= effective_number(counts) <= len(parts) + 1e-6
        assert effective_number([7] * len(parts)) == pytest.approx(len(parts))
    else:
        assert effective_number(counts) == 0


def test_no_training_waits_for_the_description() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages["describe"]["cmd"] == "gfm describe"
    assert stages["describe"]["outs"] == [COLLECTION_REPORT.as_posix()]
    waiting = [
        name for name, stage in stages.items() if any("reports/collection" in dep for dep in stage.get("deps", []))
    ]
    assert waiting == []


def test_the_command_says_what_it_found_and_where(
    collection: Callable[..., Collection], gfm: Callable[..., tuple[int, str, str]]
) -> None:
    made = collection("photos")
    made.add("photos", gsd_m=0.5)
    made.write()
    content = {
        "geopile": {"sources": {"photos": {"format": "images", "root": "photos", "licence": "CC0"}}},
        "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
        "pretrain": {"gfm": {"recipe": "gfm"}},
        "tasks": {
            "t": {
                "kind": "classification",
                "data": {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}},
            }
        },
    }
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    code, out, err = gfm("describe", "--params", "mine.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("1 image from 1 source; 0.5 m a pixel, median entropy 5.0 bits")
    assert re.search(r"^collection report: reports/collection/report\.html \(\d\.\d MB\)$", out, re.MULTILINE)
    MANIFEST.unlink()
    code, _, err = gfm("describe", "--params", "mine.yaml")
    assert (code, err) == (2, "gfm: data/geopile/manifest.parquet: no such file; run `dvc repro assemble`\n")
