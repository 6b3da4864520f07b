"""The published method, to numerical precision: what the authors' code computed, compared with our modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfm.models.parity import TOLERANCE, build_published, compare, compare_buffers, published_model, row
from gfm.models.parity_file import QUANTITIES, ParityFile, read_parity_file
from gfm.models.published import own_place, published_name

FILE = Path(__file__).parents[2] / ".." / "shared" / "parity" / "gfm_reference_tiny.safetensors"


@pytest.fixture(scope="module")
def file() -> ParityFile:
    if not FILE.exists():
        pytest.skip(f"{FILE} is not there")
    return read_parity_file(FILE)


@pytest.mark.field
def test_every_tensor_loss_and_gradient_equals_the_published_code(file: ParityFile) -> None:
    model = published_model(file)
    rows = compare(file, model)
    gradients = [f"grad/{name}" for name in file.gradients]
    assert [found.quantity for found in rows] == [*QUANTITIES, *gradients]
    assert len(gradients) == 8
    assert {found.quantity: found.error for found in rows if not found.within(TOLERANCE)} == {}
    assert not any(parameter.grad is not None for parameter in model.teacher.parameters())


@pytest.mark.field
def test_the_indices_and_masks_that_are_computed_here_are_the_stored_ones(file: ParityFile) -> None:
    rows = compare_buffers(file, published_model(file))
    assert len(rows) == 22
    assert all(found.difference == 0 for found in rows)


@pytest.mark.field
def test_every_published_name_has_one_place_here_and_back(file: ParityFile) -> None:
    assert len({own_place(name) for name in file.state}) == len(file.state)
    assert all(published_name(own_place(name)) == name for name in file.state)
    names = build_published(file.student, file.teacher, alpha=1.0).state_dict()
    assert all(own_place(published_name(name)) == name for name in names)


@given(
    expected=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5),
    factor=st.floats(1e-3, 1e3),
    place=st.integers(0, 4),
)
def test_the_relative_error_has_no_unit_and_no_nan_passes(expected: list[float], factor: float, place: int) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    largest = float(wanted.abs().max())
    found = wanted.clone()
    found[place % len(expected)] += factor * max(largest, 1e-8)
    assert row("x", found, wanted).error == pytest.approx(factor, rel=1e-6)
    assert row("x", wanted, wanted).error == 0
    found[place % len(expected)] = float("nan")
    assert not row("x", found, wanted).within(TOLERANCE)


def test_an_expected_zero_is_met_by_a_zero_alone() -> None:
    zero = torch.zeros(3)
    assert row("x", zero, zero).within(TOLERANCE)
    assert not row("x", zero + 1e-11, zero).within(TOLERANCE)
