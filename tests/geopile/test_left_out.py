"""What is trained on a collection without one of its sources: parameters, splits, validation and rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from gfm.errors import DataError
from gfm.evaluation.collection import read_split
from gfm.geopile.splits import split
from gfm.geopile.validate import validate
from gfm.layout import COLLECTION, COLLECTION_SPLIT, EXPECTATIONS, MANIFEST, manifest_without
from gfm.params import ParameterError, load
from gfm.pretraining.collection import read_rows

Picture = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def left_out(chain: Any, picture: Callable[..., Picture]) -> str:
    """A collection of 40 images, and one without a source that has an image more and 10 of the others less."""
    for number in range(40):
        chain.image(f"{number:02d}", picture(number))
    chain.sample("train", [picture(900)], "train")
    chain.sample("val", [picture(901)], "val")
    chain.sample("test", [picture(902)], "test")
    chain.write()
    table = pd.read_parquet(MANIFEST)
    returned = table.iloc[:1].assign(
        id="drawn/returned.jpg", place="drawn/returned.jpg", shard="returned/drawn-00000.tar"
    )
    manifest_without("other").parent.mkdir()
    pd.concat([table.iloc[10:], returned]).sort_values("id").to_parquet(manifest_without("other"), index=False)
    (COLLECTION / "shards/returned").mkdir()
    (COLLECTION / "shards/returned/drawn-00000.tar").write_bytes(bytes(1024))
    EXPECTATIONS.symlink_to(Path(__file__).parents[2] / "expectations")
    return "drawn/returned.jpg"


def test_an_image_that_only_comes_back_without_a_source_is_split_too_and_the_whole_is_as_it_was(
    chain: Any, left_out: str
) -> None:
    split(chain.params)
    splits = pd.read_parquet(COLLECTION_SPLIT).set_index("id")["split"]
    assert len(splits) == 41
    assert splits[left_out] in ("train", "val")
    assert sum(read_split().values()) == 40
    validate(chain.params)
    rows = [read_rows(part, without="other") for part in ("train", "val")]
    assert sum(map(len, rows)) == 31
    assert left_out in [of_split.id(number) for of_split in rows for number in range(len(of_split))]
    assert sum(len(read_rows(part)) for part in ("train", "val")) == 40


def test_a_split_that_lacks_it_is_refused_with_what_to_run(chain: Any, left_out: str) -> None:
    split(chain.params)
    table = pd.read_parquet(COLLECTION_SPLIT)
    table[table["id"] != left_out].to_parquet(COLLECTION_SPLIT, index=False)
    with pytest.raises(DataError, match=r"1 images of data/geopile/without/other\.parquet are in no split"):
        read_rows("train", without="other")
    with pytest.raises(DataError, match="every image of the manifest has one split"):
        validate(chain.params)


@pytest.mark.parametrize(
    ("leave_out", "without", "said"),
    [
        (["nap"], None, "geopile.leave_out names nap, which is not in geopile.sources"),
        (["naip", "naip"], None, "geopile.leave_out"),
        ([], "naip", "pretrain.gfm.without = naip is not in geopile.leave_out, which has none: add it there"),
        (["naip"], "mlrsnet", "pretrain.gfm.without = mlrsnet is not in geopile.leave_out, which has naip: add it"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path: Path, leave_out: list[str], without: str | None, said: str) -> None:
    raw = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    raw["geopile"]["leave_out"] = leave_out
    if without:
        raw["pretrain"]["gfm"]["without"] = without
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ParameterError) as caught:
        load(tmp_path / "params.yaml")
    assert said in str(caught.value)


def test_the_only_source_cannot_be_left_out(chain: Any) -> None:
    values = chain.params.model_dump()
    values["geopile"]["leave_out"] = ["drawn"]
    with pytest.raises(ValueError, match=r"geopile\.leave_out names drawn, the only source: nothing would be left"):
        type(chain.params).model_validate(values)
