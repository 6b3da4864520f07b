"""At most so many images of a class, and always the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfm.geopile.assemble import assemble
from gfm.geopile.quota import over_quota
from gfm.layout import COLLECTION, MANIFEST
from gfm.params import Params, Quota

LABELS = st.sampled_from(["sea", "town", None])


class Shown(NamedTuple):
    """One image; its id is SOURCE/number."""

    number: int
    label: str | None = "sea"
    source: str = "s"

    @property
    def id(self) -> str:
        return f"{self.source}/{self.number}"


def kept(images: list[Shown], quota: Quota) -> set[str]:
    images = sorted(images, key=lambda image: image.id)
    names = [image.source if quota.by == "source" else image.label and (image.source, image.label) for image in images]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name in names if name))}
    classes = np.array([numbers.get(name, -1) for name in names], np.int64)
    over = over_quota(classes, [image.id for image in images], quota)
    return {image.id for image, left_out in zip(images, over, strict=True) if not left_out}


@given(st.lists(LABELS, max_size=30), st.integers(1, 8))
def test_no_class_has_more_and_none_is_cut_further_than_that(labels: list[str | None], most: int) -> None:
    rows = [Shown(number, label) for number, label in enumerate(labels)]
    left = kept(rows, Quota(by="label", most=most))
    met, found = Counter(labels), Counter(one.label for one in rows if one.id in left)
    assert found == {name: count if name is None else min(count, most) for name, count in met.items()}


@given(st.lists(LABELS, min_size=1, max_size=30), st.integers(1, 8))
def test_an_image_of_another_class_changes_nothing_and_one_of_the_same_replaces_one_at_most(
    labels: list[str | None], most: int
) -> None:
    rows = [Shown(number, label) for number, label in enumerate(labels)]
    quota = Quota(by="label", most=most)
    before = kept(rows, quota)
    assert before == kept([*reversed(rows), Shown(99, "farm")], quota) - {"s/99"}
    assert len(before - kept([*rows, Shown(99)], quota)) <= 1


def test_labels_of_two_sources_are_two_classes_and_smallest_makes_all_equal() -> None:
    rows = [Shown(number, source="a") for number in range(5)] + [Shown(number, source="b") for number in range(3)]
    assert len(kept(rows, Quota(by="label", most=4))) == 4 + 3
    assert Counter(one[0] for one in kept(rows, Quota(by="source", most="smallest"))) == {"a": 3, "b": 3}


def test_what_is_over_quota_is_listed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        file = Path(f"raw/photos/{'sea' if number < 5 else 'town'}/{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(file)
    task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    assemble(
        Params.model_validate(
            {
                "paths": {"raw": "raw"},
                "geopile": {
                    "workers": 1,
                    "quota": {"by": "label", "most": 3},
                    "sources": {"photos": {"format": "class-folders", "root": "photos", "licence": "CC0"}},
                },
                "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
                "pretrain": {"gfm": {"recipe": "gfm"}},
                "tasks": {"t": {"kind": "classification", "data": task}},
            }
        )
    )
    assert pd.read_parquet(MANIFEST)["label"].tolist() == ["sea"] * 3 + ["town"] * 2
    dropped = pd.read_csv(COLLECTION / "dropped.csv")
    assert dropped["reason"].tolist() == ["over quota"] * 2
    assert dropped["id"].str.startswith("photos/sea/").all()
    assert "2 over quota" in capsys.readouterr().out
