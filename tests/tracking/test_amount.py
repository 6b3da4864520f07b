"""Quantities are read by people: three digits, and no powers of ten."""

from __future__ import annotations

import pytest

from gfm.tracking.amount import amount


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
