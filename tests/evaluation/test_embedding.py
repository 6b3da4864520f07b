"""The page of an embedding: its numbers are those of their definitions, and it stands for the collection it is of."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gfm.errors import DataError
from gfm.evaluation.embedding import describe_embedding
from gfm.evaluation.embedding_facts import (
    embedding_facts,
    nearest_cosines,
    principal_components,
    unit_rows,
    vendi_score,
)
from gfm.layout import COLLECTION, EMBEDDING_REPORTS, EMBEDDINGS, MANIFEST
from gfm.params import Params
from gfm.tracking.provenance import data_version

OUT = EMBEDDINGS / "teacher"
REPORT = EMBEDDING_REPORTS / "teacher"


def drawn(seed: int, count: int, channels: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float16))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
def test_the_vendi_score_is_that_of_the_matrix_of_all_cosines(seed: int, count: int, channels: int) -> None:
    unit = drawn(seed, count, channels)
    values = np.linalg.eigvalsh(unit.astype(float) @ unit.T.astype(float) / count)
    values = values[values > 1e-12]
    assert vendi_score(unit) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-4)


def test_copies_add_no_diversity_and_unlike_images_count_one_each() -> None:
    one = np.eye(5, dtype=np.float32)
    assert vendi_score(one) == pytest.approx(5)
    assert vendi_score(np.repeat(one, 3, axis=0)) == pytest.approx(5)
    assert vendi_score(np.repeat(one[:1], 9, axis=0)) == pytest.approx(1)
    assert vendi_score(one[:0]) == 0


def test_components_are_those_of_the_largest_variance_and_never_flip() -> None:
    points = drawn(3, 50, 8)
    found, shares = principal_components(points)
    _, values, rows = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    assert np.abs(found) == pytest.approx(np.abs((points - points.mean(axis=0)) @ rows[:2].T), abs=1e-4)
    assert shares == pytest.approx(tuple(values[:2] ** 2 / (values**2).sum()), abs=1e-5)
    again, _ = principal_components(points[::-1])
    assert again[::-1] == pytest.approx(found, abs=1e-9)


def test_the_nearest_image_is_another_one() -> None:
    unit = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    assert nearest_cosines(unit, np.array([0, 1])).tolist() == [0, 1]


def test_sources_are_compared_at_equal_numbers_and_tiny_ones_not_at_all() -> None:
    features = np.random.default_rng(0).normal(size=(90, 16)).astype(np.float16)
    sources = np.array(["large"] * 60 + ["small"] * 25 + ["tiny"] * 5, object)
    facts = embedding_facts(features, [f"{number}" for number in range(90)], sources, ["large", "small", "tiny"])
    assert facts.equal == 25
    large, small, tiny = facts.sources
    assert tiny.vendi_of_equal is None
    assert small.vendi_of_equal == small.vendi
    assert large.vendi_of_equal is not None and large.vendi_of_equal < large.vendi
    assert facts.whole.images == 90


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two sources, one with an image that repeats another, embedded."""
    monkeypatch.chdir(tmp_path)
    (COLLECTION / "shards").mkdir(parents=True)
    rows, shard = [], b""
    for number in range(50):
        buffer = io.BytesIO()
        Image.fromarray(np.full((20, 20, 3), 5 * number, np.uint8)).save(buffer, "PNG")
        source = "drone" if number < 25 else "satellite"
        rows.append({"id": f"{source}/{number:02d}", "source": source, "shard": "0.tar", "offset": len(shard)})
        rows[-1]["size"] = buffer.tell()
        shard += buffer.getvalue()
    (COLLECTION / "shards/0.tar").write_bytes(shard)
    (COLLECTION / "summary.json").write_text(json.dumps({"bands": ["R", "G", "B"]}))
    pq.write_table(pa.Table.from_pylist(rows), MANIFEST)
    OUT.mkdir(parents=True)
    features = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 12)
    columns = {key: [row[key] for row in rows] for key in ("id", "source")}
    pq.write_table(pa.table({**columns, "split": ["train"] * 50, "feature": column}), OUT / "features.parquet")
    (OUT / "duplicates.csv").write_text("id,kept,cosine\ndrone/03,drone/01,0.991\n")
    summary = {"encoder": "teacher", "weights": "ab", "image_px": 64, "manifest": data_version()["manifest"]}
    summary |= {"duplicate_cosine": 0.98, "duplicates": 1, "images": {"train": 50, "val": 0}}
    (OUT / "summary.json").write_text(json.dumps(summary))
    source = {"format": "images", "licence": "CC0"}
    task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    return Params.model_validate(
        {
            "geopile": {"sources": {name: {**source, "root": name} for name in ("drone", "satellite")}},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": task}},
            "embeddings": {"teacher": {}},
        }
    )


def test_the_page_shows_the_scatter_the_numbers_and_the_pairs_that_repeat(params: Params) -> None:
    describe_embedding(params, "teacher")
    page = (REPORT / "report.html").read_text()
    assert {path.name for path in (REPORT / "figures").iterdir()} == {"scatter.png", "nearest.png", "pairs.png"}
    assert "1 training image of 50 is at least 0.98 alike" in page
    assert "25 of all sources mixed as" in page
    assert "http" not in page.replace("http-equiv", "")
    numbers = json.loads((REPORT / "summary.json").read_text())
    assert numbers["sources"]["drone"]["images"] == 25
    assert 1 < numbers["all"]["vendi"] <= 12
    first = (REPORT / "report.html").read_bytes()
    describe_embedding(params, "teacher")
    assert (REPORT / "report.html").read_bytes() == first


def test_the_stage_is_not_there_until_a_parameter_names_an_encoder() -> None:
    root = Path(__file__).parents[2]
    stage = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["embed"]
    assert stage["matrix"] == {"name": "${embeddings}"}
    assert stage["outs"] == [f"{folder}/${{item.name}}" for folder in (EMBEDDINGS, EMBEDDING_REPORTS)]
    assert yaml.safe_load((root / "params.yaml").read_text())["embeddings"] == {}


def test_an_embedding_of_another_collection_is_refused(params: Params) -> None:
    table = pq.read_table(MANIFEST)
    pq.write_table(table.slice(1), MANIFEST)
    with pytest.raises(DataError, match=r"of another collection .*; run `gfm embed teacher` again"):
        describe_embedding(params, "teacher")


def test_an_encoder_that_is_not_declared_is_named(params: Params) -> None:
    with pytest.raises(ValueError, match=r"embeddings\.vision is no encoder; known are gfm, random, teacher"):
        Params.model_validate({**params.model_dump(exclude_unset=True), "embeddings": {"vision": {}}})
