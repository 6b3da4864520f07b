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


def co2eq(kg: float | None) -> str:
    """A mass of CO2eq with its unit: grams below a kilogram."""
    if kg is None:
        return amount(None)
    return f"{amount(1000 * kg)} g" if abs(kg) < 1 else f"{amount(kg)} kg"
