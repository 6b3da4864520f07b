"""Quantities are read by people: three digits, and no powers of ten."""

from __future__ import annotations

import pytest

from gfm.tracking.amount import amount, co2eq


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.0, "0"),
        (1.23456e-5, "0.0000123"),
        (6.6e-9, "0.0000000066"),
        (0.5, "0.5"),
        (12.345, "12.3"),
        (999.6, "1000"),
        (1234567.0, "1,234,567"),
    ],
)
def test_an_amount_is_plain(value: float | None, text: str) -> None:
    assert amount(value) == text


def test_co2eq_is_told_in_grams_below_a_kilogram() -> None:
    assert [co2eq(kg) for kg in (None, 0.0, 8.5e-05, 0.0031, 0.9996, 1.0, 1234.5)] == [
        "not measured", "0 g", "0.085 g", "3.1 g", "1000 g", "1 kg", "1,234 kg"
    ]  # fmt: skip
