"""Images that repeat others in an encoder's eyes: which are listed, which are kept, and what pretrains without them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.pretraining import repeats as module
from gfm.pretraining.collection import COLUMNS, Rows
from gfm.pretraining.job import Job
from gfm.pretraining.repeats import find_repeats
from gfm.pretraining.run import pretrain
from gfm.pretraining.teacher_cache import FOLDER

GFM = Path("models/encoders/gfm")


def rows_of(count: int, **columns: list) -> Rows:
    table = {
        "id": [f"s/{number:03d}" for number in range(count)],
        "source": ["s"] * count,
        "label": pa.array([None] * count, pa.string()),
        "width": [64] * count,
        "height": [64] * count,
        **{name: [0] * count for name in ("licence", "shard", "offset", "size")},
    }
    return Rows(pa.table({name: (table | columns)[name] for name in COLUMNS}))


def circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1) * 3


def test_the_labelled_then_the_larger_then_of_the_earlier_source_is_kept() -> None:
    features = circle(0, 1, 60, 61, 120, 121)
    rows = rows_of(
        6,
        label=pa.array([None, "sea", None, None, None, None], pa.string()),
        width=[64, 64, 64, 65, 64, 64],
        source=["s", "s", "s", "s", "s", "r"],
    )
    found = find_repeats(rows, features, ["r", "s"], 0.99)
    assert [(one.id, one.kept) for one in found] == [("s/000", "s/001"), ("s/002", "s/003"), ("s/004", "s/005")]
    assert found[0].cosine == pytest.approx(np.cos(np.deg2rad(1)), abs=1e-4)


def test_an_image_goes_only_for_one_that_is_kept() -> None:
    """A chain of neighbours is thinned, not emptied: the third is not like the first."""
    found = find_repeats(rows_of(3), circle(0, 5, 10), ["s"], float(np.cos(np.deg2rad(6))))
    assert [(one.id, one.kept) for one in found] == [("s/001", "s/000")]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.2, 0.99), st.integers(1, 7), st.integers(1, 5))
def test_blocks_change_nothing_and_what_is_kept_is_unlike(
    seed: int, count: int, cosine: float, block: int, chunk: int
) -> None:
    features = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32))
    whole = find_repeats(rows_of(count), features, ["s"], cosine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "CHUNK", chunk)
        assert [one.id for one in find_repeats(rows_of(count), features, ["s"], cosine)] == [one.id for one in whole]
    gone = {one.id for one in whole}
    assert gone.isdisjoint(one.kept for one in whole)
    unit = torch.nn.functional.normalize(features, dim=1)
    kept = unit[[f"s/{number:03d}" not in gone for number in range(count)]]
    assert ((kept @ kept.T).fill_diagonal_(-1) < cosine + 1e-5).all()


def test_a_pretraining_leaves_repeats_out_and_says_which(teacher, make_params, capsys) -> None:
    params = make_params(pretrain={"duplicate_cosine": 0.9999999, "epochs": 1})
    assert len(Job.prepare(params, "gfm").train) == 16
    capsys.readouterr()
    params = make_params(pretrain={"duplicate_cosine": 0.2, "epochs": 1, "batch_size": 1})
    pretrain(params, "gfm")
    with (GFM / "duplicates.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert listed and {row["id"] for row in listed}.isdisjoint(row["kept"] for row in listed)
    assert f"{len(listed)} of 16 training images repeat others and are left out" in capsys.readouterr().out
    assert f"It has seen {16 - len(listed)} images only" in (GFM / "README.md").read_text()


def test_a_resumed_training_reads_the_same_images_without_the_teacher_looking_again(
    teacher, make_params, monkeypatch
) -> None:
    params = make_params(pretrain={"duplicate_cosine": 0.5, "batch_size": 1})
    first = Job.prepare(params, "gfm")
    monkeypatch.setattr("gfm.pretraining.distinct.find_repeats", None)
    again = Job.prepare(params, "gfm")
    assert again.repeats == first.repeats
    assert again.train.table.equals(first.train.table)


def test_cached_features_are_those_of_the_images_that_are_left(teacher, make_params) -> None:
    """Two pretrainings of one collection share cached features only where they read the same images."""
    runs = {"recipe": "gfm", "cached_crops": 1, "epochs": 1, "batch_size": 1}
    pretrain(make_params(pretrain=runs), "gfm")
    pretrain(make_params(pretrain=runs | {"duplicate_cosine": 0.5}), "gfm")
    sizes = {len(pa.ipc.open_file(str(path)).read_all()) for path in FOLDER.rglob("0/*.arrow")}
    left_out = len((GFM / "duplicates.csv").read_text().splitlines()) - 1
    assert left_out and sizes == {16, 16 - left_out}
