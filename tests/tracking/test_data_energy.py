"""What a data stage took is kept beside its output, and believed only of the very same output."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfm.params import Carbon
from gfm.tracking.data_energy import account, noted

CARBON = Carbon(intensity_kg_per_kwh=0.5, device_power_w=100)


@pytest.fixture(autouse=True)
def _unmetered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "codecarbon", None)  # its start takes seconds


def test_a_note_belongs_to_the_bytes_that_were_made() -> None:
    made = Path("manifest.parquet")
    assert noted("assemble", made) is None
    with account(CARBON, "assemble", made):
        made.write_bytes(b"one")
    energy = noted("assemble", made)
    assert energy is not None and energy["computed_kg_co2eq"] > 0
    made.write_bytes(b"another")  # pulled from elsewhere
    assert noted("assemble", made) is None


def test_a_failed_stage_leaves_the_note_of_before() -> None:
    made = Path("manifest.parquet")
    with account(CARBON, "assemble", made):
        made.write_bytes(b"one")
    before = noted("assemble", made)
    with pytest.raises(ValueError), account(CARBON, "assemble", made):
        raise ValueError
    assert noted("assemble", made) == before


@pytest.mark.parametrize("content", ["[1]", "{", "{}", '{"made": 1}'])
def test_a_note_that_cannot_be_read_is_none(content: str) -> None:
    Path(".gfm/energy").mkdir(parents=True)
    Path(".gfm/energy/assemble.json").write_text(content, encoding="utf-8")
    assert noted("assemble", Path("manifest.parquet")) is None
