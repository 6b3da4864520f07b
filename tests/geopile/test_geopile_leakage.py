"""Test areas never enter pretraining: what the guard must catch, and what it must leave alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from gfm.errors import DataError
from gfm.geopile.splits import split
from gfm.imagery.alike import alike, telling
from gfm.imagery.hashing import dihedral_dhashes
from gfm.layout import COLLECTION_SPLIT, LEAKS

FIELD = Path(__file__).parents[2] / ".." / "shared" / "imagery"


def split_of(identity: str) -> str:
    table = pd.read_parquet(COLLECTION_SPLIT).set_index("id")
    return str(table.loc[identity, "split"])


def leaks() -> list[dict[str, str]]:
    with LEAKS.open(newline="") as file:
        return list(csv.DictReader(file))


def others(chain: Any, picture: Callable[..., Any]) -> None:
    """Images and samples that have nothing to do with each other."""
    for seed in range(20):
        chain.image(f"other{seed}", picture(1000 + seed))
    for seed, part in enumerate(("train", "val", "test")):
        chain.sample(f"s{part}", [picture(2000 + seed)], part)


def test_the_same_pixels_under_another_name_never_enter_pretraining(chain: Any, picture: Callable[..., Any]) -> None:
    others(chain, picture)
    copied = chain.image("copied", picture(1))
    chain.sample("held", [picture(1)], "test")
    chain.write()
    split(chain.params)
    assert split_of(copied) == "leak"
    assert leaks() == [{"id": copied, "task": "t", "sample": "held", "split": "test", "how": "pixels"}]


@pytest.mark.parametrize("turn", range(8))
def test_a_reencoded_turned_copy_of_a_test_image_never_enters_pretraining(
    chain: Any, picture: Callable[..., Any], turn: int
) -> None:
    others(chain, picture)
    turned = np.rot90(picture(1), turn % 4)
    turned = np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)
    jpeg = simplejpeg.encode_jpeg(turned, quality=80)
    copied = chain.image("copied", simplejpeg.decode_jpeg(jpeg))
    chain.sample("held", [picture(1)], "test")
    chain.write()
    split(chain.params)
    assert [(leak["id"], leak["how"]) for leak in leaks()] == [(copied, "looks")]


def test_the_second_date_of_a_change_sample_is_guarded_too(chain: Any, picture: Callable[..., Any]) -> None:
    others(chain, picture)
    copied = chain.image("copied", picture(2))
    chain.sample("held", [picture(1), picture(2)], "val")
    chain.write()
    split(chain.params)
    assert [(leak["id"], leak["sample"]) for leak in leaks()] == [(copied, "held")]


def test_a_newer_picture_of_the_ground_of_a_test_area_never_enters_pretraining(
    chain: Any, picture: Callable[..., Any]
) -> None:
    others(chain, picture)
    over = chain.image("over", picture(1), bounds=(10.0005, 50.0005, 10.0020, 50.0020))
    beside = chain.image("beside", picture(3), bounds=(10.0010, 50.0000, 10.0020, 50.0010))
    chain.sample("held", [picture(2)], "test", bounds=(10.0000, 50.0000, 10.0010, 50.0010))
    chain.write()
    split(chain.params)
    assert [(leak["id"], leak["how"]) for leak in leaks()] == [(over, "footprint")]
    assert split_of(beside) != "leak"


def test_training_samples_of_a_task_may_be_in_the_collection(chain: Any, picture: Callable[..., Any]) -> None:
    others(chain, picture)
    shared = chain.image("shared", picture(1))
    chain.sample("learnt", [picture(1)], "train")
    chain.write()
    split(chain.params)
    assert split_of(shared) != "leak"
    assert leaks() == []


def test_flat_and_striped_pictures_do_not_accuse_each_other(chain: Any, picture: Callable[..., Any]) -> None:
    others(chain, picture)
    noise = np.random.default_rng(0)
    flat = np.full((96, 96, 3), 90) + noise.integers(0, 2, (96, 96, 1))
    shade = np.broadcast_to(np.arange(96)[None, :, None], (96, 96, 3)) * 2
    stripes = np.broadcast_to((np.arange(96)[None, :, None] // 12 % 2) * 200, (96, 96, 3))
    for name, plain in (("flat", flat * 0 + 90), ("shade", shade), ("stripes", stripes)):
        chain.image(name, plain.astype(np.uint8))
        chain.sample(name, [np.clip(plain + 3, 0, 255).astype(np.uint8)], "test")
    chain.write()
    split(chain.params)
    assert leaks() == []


def test_without_the_task_index_nothing_is_split(chain: Any, picture: Callable[..., Any]) -> None:
    others(chain, picture)
    chain.write()
    Path("data/tasks/t.parquet").unlink()
    with pytest.raises(DataError, match=r"data/tasks/t\.parquet: no such file; run `gfm index`"):
        split(chain.params)
    assert not COLLECTION_SPLIT.exists()


@pytest.mark.field
@pytest.mark.skipif(not FIELD.is_dir(), reason=f"needs {FIELD}")
def test_real_drone_chips_accuse_only_their_own_copies() -> None:
    from PIL import Image

    files = sorted((FIELD / "hot-buildings/nepal/images").glob("*.png"))[:96]
    chips = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    copies = [
        simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(chip[::-1]), quality=80)) for chip in chips
    ]

    def hashes(images: list[Any]) -> Any:
        return np.asarray([[int(value, 16) for value in dihedral_dhashes(image)] for image in images], np.uint64)

    upright, variants = hashes(copies)[:, 0], hashes(chips)
    comparable = telling(variants).any(axis=1)
    pairs = alike(upright, variants, 3)
    found = {int(image) for image, sample in pairs if image == sample}
    assert len(found) >= 0.95 * comparable.sum()
    assert all(image == sample for image, sample in pairs)
