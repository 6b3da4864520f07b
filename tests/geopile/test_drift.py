"""What is said of a collection beside the version before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gfm.errors import DataError
from gfm.geopile.drift import drift_table, read_before, statistics, write_statistics

DICE = np.random.default_rng(0)
BEFORE = pd.DataFrame(
    {
        "source": ["drone"] * 40 + ["satellite"] * 40,
        "label": ["sea", "land"] * 20 + [None] * 40,
        "entropy_bits": DICE.normal(7, 0.4, 80),
        "contrast": DICE.normal(40, 8, 80),
        "sharpness": DICE.normal(500, 90, 80),
        "gsd_m": [0.3] * 40 + [None] * 40,
    }
)
DRIFTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "half of a source gone": (lambda table: table.drop(index=range(1, 40, 2)), "lost_share"),
    "a source gone": (lambda table: table.iloc[40:], "lost_share"),
    "emptier images": (lambda table: table.assign(entropy_bits=table["entropy_bits"] - 2), "entropy_bits_shift"),
    "haze over all": (lambda table: table.assign(contrast=table["contrast"] / 4), "contrast_shift"),
    "all images blurred": (lambda table: table.assign(sharpness=table["sharpness"] / 10), "sharpness_shift"),
    "another resolution": (lambda table: table.assign(gsd_m=table["gsd_m"] * 2), "gsd_m_shift"),
    "a class gone": (lambda table: table[table["label"] != "sea"], "classes_shift"),
}


def drifted(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame(drift_table(statistics(BEFORE), statistics(edit(BEFORE)))).set_index("id")


def test_the_same_collection_has_not_moved() -> None:
    found = drifted(lambda table: table)
    assert list(found.index) == ["drone", "satellite"]
    assert found.drop(columns=["images", "images_before"]).fillna(0).astype(float).to_numpy().sum() == 0
    assert found.loc["satellite", ["gsd_m_shift", "classes_shift"]].isna().all()  # nothing is known of them


@pytest.mark.parametrize("drift", DRIFTS)
def test_each_drift_shows_in_its_column(drift: str) -> None:
    edit, column = DRIFTS[drift]
    assert drifted(edit).loc["drone", column] >= 0.5


def test_other_images_of_the_same_kind_are_no_drift() -> None:
    found = drifted(lambda table: table.drop(index=[3, 50]).assign(sharpness=table["sharpness"] * 1.01))
    assert (found[["lost_share", "sharpness_shift", "classes_shift"]].fillna(0).astype(float) < 0.1).all(axis=None)


def test_a_new_source_is_no_drift_and_no_version_before_gives_no_rows() -> None:
    more = pd.concat([BEFORE, BEFORE.assign(source="new")])
    assert "new" not in drift_table(statistics(BEFORE), statistics(more))["id"]
    assert drift_table({}, statistics(BEFORE))["id"] == []


def test_the_version_before_is_the_last_other_one(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    first, second = statistics(BEFORE), statistics(BEFORE.iloc[:60])
    assert read_before(path, "a") == (None, {})
    write_statistics(path, "a", first, read_before(path, "a"))
    assert read_before(path, "a") == (None, {})
    assert read_before(path, "b") == ("a", first)
    write_statistics(path, "b", second, read_before(path, "b"))
    whole = path.read_bytes()
    assert read_before(path, "b") == ("a", first)
    write_statistics(path, "b", second, read_before(path, "b"))
    assert path.read_bytes() == whole
    assert read_before(path, "c") == ("b", second)


def test_broken_statistics_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "statistics.json").write_text("{")
    with pytest.raises(DataError, match=r"statistics\.json: cannot be read .* remove it"):
        read_before(tmp_path / "statistics.json", "a")
