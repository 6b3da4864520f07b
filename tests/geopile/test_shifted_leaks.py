"""Shifted crops and other zooms of test images, without georeference, from the files to the list of leaks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import simplejpeg
from PIL import Image

from gfm.downstream.index import index_tasks
from gfm.errors import DataError
from gfm.geopile import shifted
from gfm.geopile.assemble import assemble
from gfm.geopile.splits import split
from gfm.layout import COLLECTION_SPLIT, LEAKS, task_corners
from gfm.params import Params

HELD_PX = 160

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def town(seed: int, side: int = 320) -> Picture:
    """Ground with roofs and roads: corners of every size."""
    dice = np.random.default_rng(seed)
    image = np.full((side, side, 3), dice.integers(60, 160, 3), np.uint8)
    for _ in range(160):
        middle, size, turn = dice.integers(0, side, 2), dice.integers(6, 40, 2), dice.integers(0, 180)
        outline = cv2.boxPoints((middle.tolist(), size.tolist(), float(turn))).astype(np.int32)
        cv2.fillPoly(image, [outline], dice.integers(0, 255, 3).tolist())
    return np.clip(image + dice.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def held(image: Picture) -> Picture:
    return image[:HELD_PX, :HELD_PX]


def moved(image: Picture, percent: int) -> Picture:
    across = round(HELD_PX * percent / 100)
    return image[:HELD_PX, across : across + HELD_PX]


def zoomed(image: Picture, factor: float) -> Picture:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), np.uint8)


PLANTED: dict[str, Callable[[Picture], Picture]] = {
    "shifted by a tenth": lambda image: moved(image, 10),
    "shifted by a quarter": lambda image: moved(image, 25),
    "shifted by a third, turned": lambda image: np.rot90(moved(image, 33)),
    "shifted by a quarter, mirrored": lambda image: moved(image, 25)[:, ::-1],
    "shifted by a fifth, two thirds of the pixels": lambda image: zoomed(moved(image, 20), 0.67),
    "wider": lambda image: zoomed(image[:224, :224], 5 / 7),
    "a part": lambda image: zoomed(image[30:137, 30:137], 1.5),
}


def save(path: Path, image: Picture, quality: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if quality is not None:
        image = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality))
    Image.fromarray(np.ascontiguousarray(image)).save(path)


def parameters(*, find_shifted: bool = True) -> Params:
    source = {"format": "images", "root": "photos", "licence": "CC0"}
    task = {"format": "class-folders", "root": "t", "split": {"val_share": 0.3, "test_share": 0.3}}
    return Params.model_validate(
        {
            "paths": {"raw": "raw"},
            "geopile": {"workers": 1, "sources": {"photos": source}},
            "splits": {"val_share": 0.25, "find_shifted": find_shifted},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": task}},
        }
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight task images; the collection holds each in every way, and 20 of other ground."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(8):
        save(folder / f"raw/t/{'ab'[number % 2]}/{number}.png", held(town(number)))
        for kind, leak in PLANTED.items():
            save(folder / f"raw/photos/{number} {kind}.png", leak(town(number)), quality=80)
    for number in range(20):
        save(folder / f"raw/photos/innocent {number}.png", held(town(100 + number)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assemble(parameters())
        index_tasks(parameters())
    return folder


@pytest.fixture
def there(planted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(planted)
    return planted


def leaks() -> pd.DataFrame:
    with LEAKS.open(newline="") as file:
        return pd.DataFrame(csv.DictReader(file), columns=["id", "task", "sample", "split", "how"])


def test_shifted_and_zoomed_copies_of_held_out_images_are_taken_out_and_no_other(there: Path) -> None:
    split(parameters())
    index = pd.read_parquet("data/tasks/t.parquet")
    held_out = set(index.loc[index["split"] != "train", "id"].str[2:3])
    assert 2 <= len(held_out) < 8
    found = leaks()
    assert set(found["id"]) == {f"photos/{number} {kind}.png" for number in held_out for kind in PLANTED}
    assert (found["id"].str[7] == found["sample"].str[2]).all()  # each accused by its own ground
    assert (found["how"] == "shifted").sum() >= 6 * len(held_out)
    table = pd.read_parquet(COLLECTION_SPLIT)
    assert set(table.loc[table["split"] == "leak", "id"]) == set(found["id"])


def test_the_list_is_the_same_with_several_processes(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(parameters())
    one = LEAKS.read_bytes()
    monkeypatch.setattr(shifted, "_FEW", 0)
    monkeypatch.setattr(shifted, "_AT_ONCE", 30)
    params = parameters()
    geopile = params.geopile.model_copy(update={"workers": 2})
    split(params.model_copy(update={"geopile": geopile}))
    assert LEAKS.read_bytes() == one


def test_nobody_looks_unless_asked_and_an_index_without_corners_says_what_to_do(there: Path) -> None:
    split(parameters(find_shifted=False))
    assert "shifted" not in set(leaks()["how"])
    kept = task_corners("t").read_bytes()
    task_corners("t").unlink()
    with pytest.raises(DataError, match=r"data/tasks/t\.corners\.npz: no such file, and .* run `gfm index`"):
        split(parameters())
    for damaged in (kept[: len(kept) // 2], b""):
        task_corners("t").write_bytes(damaged)
        with pytest.raises(DataError, match=r"t\.corners\.npz: cannot be read \(.*\); run"):
            split(parameters())
    task_corners("t").write_bytes(kept)


def test_corners_that_do_not_fit_each_other_or_the_index_are_an_error_and_not_no_leaks(there: Path) -> None:
    path = task_corners("t")
    kept = path.read_bytes()
    with np.load(path) as file:
        tables = {name: file[name] for name in file.files}
    one = int(tables["counts"][0])
    damages = {
        "do not fit each other": {"points": tables["points"][:-1]},
        "do not fit each other: 1 names": {"names": tables["names"][:1]},
        "hold something else than corners": {"counts": -tables["counts"]},
        "words is not a file in the archive": {"words": None},
        "lacks .*, unlike the index beside it; run `gfm index` again": {
            "names": tables["names"][2:],
            "counts": tables["counts"][2:],
            **{name: tables[name][one + int(tables["counts"][1]) :] for name in ("points", "words")},
        },
        "lacks .*, unlike the": {name: table[:0] for name, table in tables.items()},
        "has corners of .*, unlike": {"names": np.array(["a/none.png", *tables["names"][1:]])},
    }
    try:
        for told, damage in damages.items():
            np.savez(path, **{name: table for name, table in (tables | damage).items() if table is not None})
            with pytest.raises(DataError, match=rf"data/tasks/t\.corners\.npz: .*{told}"):
                split(parameters())
        with path.open("wb") as file:
            np.save(file, tables["points"])
        with pytest.raises(DataError, match=r"data/tasks/t\.corners\.npz: cannot be read"):
            split(parameters())
    finally:
        path.write_bytes(kept)


def test_an_index_keeps_no_corners_unless_asked(there: Path) -> None:
    first = task_corners("t").read_bytes()
    index_tasks(parameters(find_shifted=False))
    assert not task_corners("t").exists()
    index_tasks(parameters())
    assert task_corners("t").read_bytes() == first
