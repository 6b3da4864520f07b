"""What every test finds as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _whole_floats() -> Iterator[None]:
    """A training flushes denormals in its process (see compute.py); property tests draw such numbers."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
