"""`gfm embed`: what is written of which images, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gfm.errors import GfmError
from gfm.models.encoder import load_encoder
from gfm.pretraining.collection import read_rows
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset
from gfm.pretraining.embed import embed
from gfm.pretraining.features import WHOLE

OUT = Path("data/embeddings/teacher")


def features() -> dict[str, np.ndarray]:
    table = pq.read_table(OUT / "features.parquet")
    column = table["feature"].combine_chunks()
    return dict(zip(table["id"].to_pylist(), column.values.to_numpy().reshape(len(column), -1), strict=True))


def test_every_image_that_trains_or_is_held_out_gets_the_encoders_pooled_map(teacher, make_params) -> None:
    params = make_params()
    embed(params, "teacher")
    table = pq.read_table(OUT / "features.parquet")
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert {part: table["split"].to_pylist().count(part) for part in ("train", "val")} == {"train": 16, "val": 8}
    rows = read_rows("val")
    images = CropDataset(rows, bands=3, px=64, crop=WHOLE, seed=9)
    encoder = load_encoder(teacher, image_px=64, seed=0).eval()
    picture = images[VALIDATION_EPOCH, 3].image[None].float() / 255
    expected = encoder(picture)[-1].mean(dim=(2, 3))[0].detach().numpy()
    assert features()[rows.id(3)] == pytest.approx(expected, abs=2e-3)
    summary = json.loads((OUT / "summary.json").read_text())
    assert summary["images"] == {"train": 16, "val": 8}
    assert len(summary["weights"]) == 64 and len(summary["manifest"]) == 32


def test_the_same_encoder_and_images_give_the_same_bytes_whatever_the_batch(teacher, make_params) -> None:
    embed(make_params(), "teacher")
    first = (OUT / "features.parquet").read_bytes(), (OUT / "duplicates.csv").read_bytes()
    embed(make_params(), "teacher")
    assert first == ((OUT / "features.parquet").read_bytes(), (OUT / "duplicates.csv").read_bytes())
    whole = features()
    embed(make_params(embeddings={"teacher": {"batch_size": 3}}), "teacher")
    assert all(np.allclose(whole[name], value, atol=1e-3) for name, value in features().items())


def test_repeats_are_listed_among_training_images_only_where_a_limit_asks_for_it(teacher, make_params) -> None:
    embed(make_params(embeddings={"teacher": {"duplicate_cosine": 0.5}}), "teacher")
    header, *lines = (OUT / "duplicates.csv").read_text().splitlines()
    assert header == "id,kept,cosine"
    train = set(read_rows("train").table["id"].to_pylist())
    assert lines and {line.split(",")[0] for line in lines} <= train
    embed(make_params(embeddings={"teacher": {"duplicate_cosine": None}}), "teacher")
    assert (OUT / "duplicates.csv").read_text() == "id,kept,cosine\n"


def test_an_encoder_of_other_bands_is_refused(teacher, make_params) -> None:
    params = make_params()
    grey = params.model_copy(update={"geopile": params.geopile.model_copy(update={"bands": ["R"]})})
    with pytest.raises(GfmError, match=r"models/encoders/teacher: takes R, G, B, geopile\.bands is R"):
        embed(grey, "teacher")
    assert not OUT.exists()


def test_a_missing_encoder_says_what_makes_it(folder, make_params) -> None:
    with pytest.raises(GfmError, match="run `gfm teacher` first"):
        embed(make_params(), "teacher")
