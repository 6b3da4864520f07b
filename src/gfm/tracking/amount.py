"""Quantities of energy and CO2eq as a person reads them."""

from __future__ import annotations

from decimal import Decimal


def amount(value: float | None) -> str:
    """A quantity with three significant digits, never in powers of ten, or that it was not measured."""
    if value is None:
        return "not measured"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{Decimal(f'{value:.3g}'):f}"
