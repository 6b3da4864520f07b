"""`gfm embed`: what is written of which images, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gfm.errors import GfmError
from gfm.models.encoder import load_encoder
from gfm.models.weights_hash import sha256_of
from gfm.pretraining import embed as embedding
from gfm.pretraining import feature_blocks
from gfm.pretraining.collection import read_rows
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset
from gfm.pretraining.embed import embed
from gfm.pretraining.features import WHOLE
from gfm.tracking.runs import Run

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


SMALL = {"teacher": {"batch_size": 2, "duplicate_cosine": 0.5}}
KILLED = """
import os, signal, sys
from pathlib import Path
from gfm.params import Params
from gfm.pretraining import embed as embedding
from gfm.pretraining import feature_blocks
from gfm.pretraining.embed import embed

sys.modules["codecarbon"] = None
feature_blocks.BLOCK = 4
write = feature_blocks.FeatureBlocks.write

def written(self, block, features):
    if block == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, block, features)

feature_blocks.FeatureBlocks.write = written
embed(Params.model_validate_json(Path("killed.json").read_text()), "teacher")
"""


def results() -> dict[str, bytes]:
    """What is the same whenever and wherever it was computed."""
    return {path.name: path.read_bytes() for path in OUT.iterdir() if path.name != "run.json"}


def cleared() -> dict[str, bytes]:
    """The results, which are then removed."""
    whole = results()
    for path in OUT.iterdir():
        path.unlink()
    OUT.rmdir()
    return whole


@pytest.fixture
def stopped(teacher: Path, make_params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended in its third block of four images."""
    monkeypatch.setattr(feature_blocks, "BLOCK", 4)
    write = feature_blocks.FeatureBlocks.write

    def written(self: Any, block: int, features: Any) -> None:
        if block == 2:
            raise KeyError("stopped")
        write(self, block, features)

    with monkeypatch.context() as patch:
        patch.setattr(feature_blocks.FeatureBlocks, "write", written)
        with pytest.raises(KeyError):
            embed(make_params(embeddings=SMALL), "teacher")


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(
    teacher, make_params, monkeypatch, capsys
) -> None:
    params = make_params(embeddings=SMALL)
    monkeypatch.setattr(feature_blocks, "BLOCK", 4)
    embed(params, "teacher")
    assert not list(feature_blocks.FOLDER.rglob("*.f16"))  # nothing stays of a run that ends
    undisturbed = cleared()
    Path("killed.json").write_text(params.model_dump_json())
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not OUT.exists()
    embed(params, "teacher")
    assert "8 of 24 images were remembered from a run that did not end" in capsys.readouterr().out
    assert results() == undisturbed
    record = json.loads((OUT / "run.json").read_text())
    assert record["samples"] == 16 and "without 8 images" in record["energy"]["method"]
    assert not list(feature_blocks.FOLDER.rglob("*.f16"))


def test_a_block_that_was_damaged_is_computed_again(stopped, make_params, capsys) -> None:
    first, second = sorted(feature_blocks.FOLDER.rglob("*.f16"))
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"\0" * second.stat().st_size)
    embed(make_params(embeddings=SMALL), "teacher")
    assert "remembered" not in capsys.readouterr().out
    damaged = cleared()
    embed(make_params(embeddings=SMALL), "teacher")
    assert results() == damaged


@pytest.mark.parametrize("changed", ["models/encoders/teacher/model.safetensors", "data/geopile/shards/00000.tar"])
def test_nothing_is_taken_from_a_run_of_other_weights_or_shards(stopped, make_params, capsys, changed) -> None:
    path = Path(changed)
    data = bytearray(path.read_bytes())
    if path.suffix == ".tar":
        data.extend(b"\0")
    else:
        data[-4:] = np.float32(0.5).tobytes()
    before = sha256_of(path)
    path.write_bytes(data)
    card = Path("models/encoders/teacher/config.json")
    card.write_text(card.read_text().replace(before, sha256_of(path)))  # as whoever makes other weights writes it
    embed(make_params(embeddings=SMALL), "teacher")
    assert "remembered" not in capsys.readouterr().out


def test_a_run_is_recorded_with_its_energy(teacher, make_params, monkeypatch) -> None:
    seen: dict[str, Any] = {}

    class Seen(Run):
        run_id = "a run"

        def metrics(self, values: Any, step: int | None = None) -> None:
            seen.update(values)

        def energy(self, energy: Any) -> None:
            seen["energy"] = energy.as_dict()

    @contextmanager
    def child_run(params: Any, name: str, kind: str, settings: Any, seed: int) -> Iterator[Run]:
        seen.update(what=(kind, name), settings=settings)
        yield Seen()

    monkeypatch.setattr(embedding, "child_run", child_run)
    embed(make_params(embeddings=SMALL), "teacher")
    record = json.loads((OUT / "run.json").read_text())
    assert seen["what"] == ("embed", "teacher") and seen["images"] == 24 and seen["settings"]["batch_size"] == 2
    assert record["run_id"] == "a run" and record["energy"] == seen["energy"]
